"""Writes the page of a run or a sweep: ``python scripts/report.py outputs/my_run``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("report")
