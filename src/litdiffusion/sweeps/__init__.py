"""Sweeps: one folder per job, a table at the end, and a search by Optuna. Imports no torch."""

from litdiffusion.config.job_names import job_folder, job_name, job_subdir, sweep_folder
from litdiffusion.sweeps.job import run_job
from litdiffusion.sweeps.report import SweepStart, print_table, print_table_at_end

__all__ = [
    "SweepStart",
    "job_folder",
    "job_name",
    "job_subdir",
    "print_table",
    "print_table_at_end",
    "run_job",
    "sweep_folder",
]
