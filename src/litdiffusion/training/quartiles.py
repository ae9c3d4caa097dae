"""The loss by quartile of time (of log sigma if time is sigma): shows at which noise levels a model is good or bad."""

from collections.abc import Callable

import torch
from torch import Tensor

from litdiffusion.diffusion.objectives import Losses

NAMES = ("t_0_25", "t_25_50", "t_50_75", "t_75_100")


def quartile_index(t: Tensor) -> Tensor:
    """0 to 3, shaped like t: the quartile (0, 1/4], ..., (3/4, 1] of each t; 0 belongs to the first."""
    return (4 * t).ceil().clamp(1, 4).long() - 1


def quartile_sums(t: Tensor, values: Tensor, importance: Tensor | None = None) -> Tensor:
    """Counts and sums (2, 4) of ``values`` (B,) for t (B,) in (0, 1/4], ..., (3/4, 1]; batches are added up.

    A value of ``importance`` k counts k times.
    """
    index = quartile_index(t)
    count = torch.ones_like(values) if importance is None else importance
    counted = torch.stack([count, count * values])
    return torch.zeros(2, 4, dtype=values.dtype, device=values.device).index_add_(1, index, counted)


def quartile_means(sums: Tensor, name: str) -> dict[str, Tensor]:
    """``name``: the mean of all values; ``name_t_0_25`` etc.: the means of the quartiles that have values."""
    counts, totals = sums
    means = {f"{name}_{NAMES[k]}": totals[k] / counts[k] for k in range(4) if counts[k] > 0}
    return {name: totals.sum() / counts.sum(), **means}


def sums_by_quartile(losses: Losses, place: Callable[[Tensor], Tensor]) -> Tensor:
    """Counts and sums (2, 4) of losses, see `quartile_sums`."""
    return quartile_sums(place(losses.t), losses.value, losses.importance)
