"""``litdiffusion compare outputs/sweeps/NAME``. Imports no torch."""

import argparse
from pathlib import Path

from litdiffusion.sweeps import print_table


def main(program: str) -> None:
    """Reads the command line of ``program`` and prints the table of a sweep."""
    parser = argparse.ArgumentParser(
        program,
        description="Prints one row per job (overrides, status, metric, minutes) and writes comparison.csv and .png.",
    )
    parser.add_argument("folder", type=Path, help="folder of the sweep: outputs/sweeps/NAME")
    print_table(parser.parse_args().folder)
