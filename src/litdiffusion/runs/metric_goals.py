"""Which values of a logged number are better."""

from collections.abc import Collection, Iterable, Mapping
from math import isnan
from typing import Literal

LOSSES = ("loss", "error", "reconstruction", "kl", "nats", "bits")
"""Words in the names of numbers that are better small."""
SPREAD = "_spread"
"""End of the name of a number's spread, one standard deviation, which is neither better small nor large."""
SHARES = ("mode_", "share_", "data_share_")
"""Beginnings of the names of measured numbers that describe samples, and are neither better small nor large."""


def goal(name: str, rising: Collection[str] = ()) -> Literal["min", "max"] | None:
    """Whether small or large values of ``section/number`` are better; None: neither, or unknown.

    Args:
        name: a name of the log.
        rising: numbers of the metrics for which larger is better, see `Quality.rising`.
    """
    section, _, number = name.partition("/")
    if section not in ("train", "val", "test", "likelihood", "quality", "samples") or not number:
        return None
    if number.endswith(SPREAD):
        return None
    if number in rising or number.endswith(("accuracy", "acc")):
        return "max"
    if section in ("quality", "samples"):  # distances from the data
        return None if number.startswith(SHARES) else "min"
    return "min" if not set(LOSSES).isdisjoint(number.split("_")) else None


def best_values(rows: Iterable[Mapping[str, str]], rising: Collection[str] = ()) -> dict[str, tuple[str, float]]:
    """For each number with a `goal`: min or max, and the best of its values in rows of text."""
    best: dict[str, tuple[str, float]] = {}
    for name, text in (cell for row in rows for cell in row.items()):
        side = goal(name, rising) if text else None
        if side is None or isnan(value := float(text)):
            continue
        better = min if side == "min" else max
        best[name] = side, better(value, best.get(name, (side, value))[1])
    return best
