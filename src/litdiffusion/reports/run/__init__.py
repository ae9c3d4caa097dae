"""The report of one run, made from the files in its folder. Imports no torch."""

from litdiffusion.reports.run.page import REPORT, write_report

__all__ = ["REPORT", "write_report"]
