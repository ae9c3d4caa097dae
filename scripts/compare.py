"""Compares the jobs of a sweep, finished or not: ``python scripts/compare.py outputs/sweeps/NAME``."""

import argparse
import sys
from pathlib import Path

from litdiffusion.errors import UserError
from litdiffusion.sweeps import print_table


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Prints one row per job (overrides, status, metric, minutes) and writes comparison.csv and .png."
    )
    parser.add_argument("folder", type=Path, help="folder of the sweep: outputs/sweeps/NAME")
    try:
        print_table(parser.parse_args().folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
