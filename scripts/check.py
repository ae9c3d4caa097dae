"""Trains an experiment and checks its metric: ``python scripts/check.py experiment=toy_spiral``; status 1: too bad."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("check")
