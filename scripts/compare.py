"""Compares the jobs of a sweep: ``python scripts/compare.py outputs/sweeps/NAME``; also of one that still goes on."""

import argparse
import sys
from pathlib import Path

from litdiffusion.errors import UserError
from litdiffusion.sweeps import report


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Prints a row per job (overrides, status, metric, minutes) and writes comparison.csv and .png."
    )
    parser.add_argument("folder", type=Path, help="of the sweep: outputs/sweeps/NAME")
    try:
        report(parser.parse_args().folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
