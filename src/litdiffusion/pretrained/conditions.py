"""Values of conditions that a user asks for: ``condition.angle=1.2``, ``condition.grey=[0.1,0.2]``."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import ListConfig
from torch import Tensor

from litdiffusion.data.conditions import CLASS, values_line
from litdiffusion.errors import UserError, nearest
from litdiffusion.training.class_labels import class_captions
from litdiffusion.training.conditions import class_column

Values = float | Sequence[float] | None
Condition = Mapping[str, Values] | None
"""Name of a condition -> its value, several values in turn, or None for one that the net is not told."""


def values_for(n: int, condition: Condition, scales: Sequence[Mapping[str, Any]], drops: bool) -> Tensor:
    """The values (n, D) of n samples, each condition's in turn; NaN for those that are not named.

    Values outside of those of the training items are warned of.

    Args:
        n: number of samples.
        condition: the values asked for.
        scales: the conditions of the model, see `litdiffusion.data.conditions.condition_scales`.
        drops: whether the model has learned to do without a condition (class_dropout above 0).

    Raises:
        UserError: an unknown condition, no finite numbers, or one that is missing although the model needs it.
    """
    condition, names = _flat(condition or {}), [scale["name"] for scale in scales]
    for name in condition:
        if name == CLASS:
            raise UserError(
                f"condition.{CLASS}={condition[name]}: the class is chosen by class_label={condition[name]}"
            )
        if name not in names:
            has = f"it was trained with {values_line(scales)}" if names else "it was trained without conditions"
            raise UserError(f"condition.{name}: the model has no condition {name}{nearest(str(name), names)} ({has})")
    missing = [name for name in names if condition.get(name) is None]
    if missing and not drops:
        raise UserError(
            f"the model was trained with class_dropout=0, so it must be told {', '.join(missing)}: give "
            f"condition.{missing[0]}=... ({values_line(scales)})"
        )
    columns = [_column(n, condition.get(scale["name"]), scale) for scale in scales]
    return torch.stack(columns, dim=1) if columns else torch.empty(n, 0)


def _flat(condition: Mapping[str, Any]) -> dict[str, Any]:
    """The values by their whole names: ``condition.my.age=1`` arrives as ``{my: {age: 1}}``."""
    found: dict[str, Any] = {}
    for name, value in condition.items():
        inner = _flat(value) if isinstance(value, Mapping) else None
        found |= {name: value} if inner is None else {f"{name}.{rest}": item for rest, item in inner.items()}
    return found


def _column(n: int, value: Values, scale: Mapping[str, Any]) -> Tensor:
    """The values (n,) of one condition."""
    name, low, high = scale["name"], scale["low"], scale["high"]
    if value is None:
        return torch.full((n,), torch.nan)
    values = list(value) if isinstance(value, list | tuple | ListConfig) else [value]
    if not values or not all(type(number) in (int, float) and math.isfinite(number) for number in values):
        raise UserError(
            f"condition.{name} must be a finite number, or several in turn ([{low:g},{high:g}]), got {value}"
        )
    slack = 1e-5 * (high - low)  # because the ends are stored to six digits
    outside = [number for number in values if not low - slack <= number <= high + slack]
    if outside:
        warnings.warn(
            f"condition.{name}={outside[0]:g} is outside of the training data ({low:.4g} to {high:.4g}): what the "
            f"model draws there is a guess",
            stacklevel=2,
        )
    return torch.tensor(values, dtype=torch.float32)[torch.arange(n) % len(values)]


def captions_of(
    told: Tensor | None,
    num_classes: int,
    class_names: Sequence[str],
    scales: Sequence[Mapping[str, Any]],
    named: bool = True,
) -> list[str]:
    """What each sample was told, in a few words: ``cat, age = 3``, or ``cat, 3`` unless ``named``; empty if nothing."""
    captions = class_captions(class_column(told, num_classes), class_names)
    if told is None or not scales:
        return captions
    rows = told[:, -len(scales) :].tolist()
    texts = [
        [
            f"{scale['name']} = {value:.3g}" if named else f"{value:.3g}"
            for scale, value in zip(scales, row, strict=True)
            if not math.isnan(value)
        ]
        for row in rows
    ]
    return [", ".join([*captions[i : i + 1], *text]) for i, text in enumerate(texts)]
