"""Compares the jobs of a sweep, finished or not: ``python scripts/compare.py outputs/sweeps/NAME``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("compare")
