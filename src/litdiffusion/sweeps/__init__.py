"""Sweeps: one folder per job, a table at the end, and a search by Optuna. Imports no torch."""

from litdiffusion.config.job_names import job_folder, job_name, job_subdir, sweep_folder
from litdiffusion.sweeps.job import run_job
from litdiffusion.sweeps.report import SweepStart, end, report

__all__ = ["SweepStart", "end", "job_folder", "job_name", "job_subdir", "report", "run_job", "sweep_folder"]
