"""Tables that tests write."""

from pathlib import Path

import numpy as np

MEAN, STD = (100.0, -50.0), (30.0, 5.0)


def points(n: int = 400, seed: int = 0) -> np.ndarray:
    """Points (n, 2) of N(MEAN, diag(STD²)), with the sample's mean and deviation exactly so."""
    z = np.random.default_rng(seed).normal(size=(n, 2))
    z = (z - z.mean(0)) / z.std(0)
    return z * STD + MEAN


def write_csv(path: Path, x: np.ndarray, names: str = "x,y", kinds: list | None = None) -> Path:
    """The rows of x (n, d), each with its kind if there are kinds."""
    ends = [f",{kind}" for kind in kinds] if kinds else [""] * len(x)
    rows = [",".join(repr(float(value)) for value in row) + end for row, end in zip(x, ends, strict=True)]
    path.write_text("\n".join([names, *rows]) + "\n")
    return path
