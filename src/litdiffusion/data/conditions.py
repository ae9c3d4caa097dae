"""Continuous conditions: named numbers of each item that a model can be told, beside its class.

Some are *given* with the items (columns of a table), others are *computed* of them (the angle of a spiral's point, the
mean grey of an image). `DataModule.choose_conditions` names those that the loaders return, as `Batch.conditions`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from litdiffusion.errors import UserError, nearest

CLASS = "class"
"""The name of the class among the names of conditions."""


def mean_grey(x: Tensor, low: float, high: float) -> Tensor:
    """The mean over pixels and colours of images (n, C, H, W) in [low, high], as a number from 0 to 1; (n,)."""
    colours = x[:, :3] if x.shape[1] == 4 else x  # the fourth channel is alpha
    return (colours.flatten(1).mean(1) - low) / (high - low)


def condition_scales(names: Sequence[str], values: Tensor) -> list[dict[str, Any]]:
    """``{name, mean, std, low, high}`` of each condition, to six digits: what a net and a script need to know of it.

    Args:
        names: D names.
        values: (N, D) of the training items; ``low`` and ``high`` are the smallest and the largest of them.

    Raises:
        UserError: a condition with a single value, which tells a model nothing.
    """
    exact = values.double()
    numbers = exact.mean(0), exact.std(0, correction=0), exact.amin(0), exact.amax(0)
    scales = []
    for name, *row in zip(names, *(number.tolist() for number in numbers), strict=True):
        mean, std, low, high = (float(f"{number:.6g}") for number in row)
        if not low < high:
            raise UserError(f"the condition {name} has the one value {low:g} in all training items; leave it out")
        scales.append({"name": name, "mean": mean, "std": std, "low": low, "high": high})
    return scales


def check_conditions(name: str, names: Sequence[str], values: Tensor) -> None:
    """Raises a `UserError` for NaN and infinite values (N, D), with the condition and the first item."""
    bad = ~torch.isfinite(values)
    if bad.any():
        item, column = bad.nonzero()[0].tolist()
        raise UserError(
            f"{name}: the condition {names[column]} is {values[item, column]:g} for item {item}, and not finite for "
            f"{int(bad[:, column].sum())} items; repair or remove these items, or leave the condition out"
        )


def chosen_columns(names: Sequence[str], known: Sequence[str], asked: str) -> list[int]:
    """The places of ``names`` among the ``known`` ones; a `UserError` that starts with ``asked`` for any other."""
    for name in names:
        if name not in known:
            has = f"they have {', '.join(known)}" if known else "they have none"
            raise UserError(f"{asked}: the data have no condition {name}{nearest(name, list(known))} ({has})")
    return [list(known).index(name) for name in names]


def values_line(scales: Sequence[Mapping[str, Any]]) -> str:
    """``angle from 0 to 9.42, grey from 0.02 to 0.4``."""
    return ", ".join(f"{scale['name']} from {scale['low']:.4g} to {scale['high']:.4g}" for scale in scales)
