"""Which values of a logged number are better."""

from collections.abc import Collection
from typing import Literal

LOSSES = ("loss", "error", "reconstruction", "kl", "nats", "bits")
"""Words in the names of numbers that are better small."""
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
    if number in rising or number.endswith(("accuracy", "acc")):
        return "max"
    if section in ("quality", "samples"):  # distances from the data
        return None if number.startswith(SHARES) else "min"
    return "min" if not set(LOSSES).isdisjoint(number.split("_")) else None
