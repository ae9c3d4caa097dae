"""The loss seen by quartile of time (of log sigma, where time is sigma): at which noise a model is good or bad."""

import torch
from torch import Tensor

NAMES = ("t_0_25", "t_25_50", "t_50_75", "t_75_100")


def quartile_sums(t: Tensor, values: Tensor, importance: Tensor | None = None) -> Tensor:
    """(2, 4): counts and sums of ``values`` (B,) over t (B,) in (0, 1/4], ..., (3/4, 1]; they add up over batches.

    A value of ``importance`` k counts k times.
    """
    index = (4 * t).ceil().clamp(1, 4).long() - 1
    count = torch.ones_like(values) if importance is None else importance
    rows = torch.stack([count, count * values])
    return torch.zeros(2, 4, dtype=values.dtype, device=values.device).index_add_(1, index, rows)


def quartile_means(sums: Tensor, name: str) -> dict[str, Tensor]:
    """``name``, the mean over all values, and ``name_t_0_25`` etc., those of the quartiles that have any."""
    counts, totals = sums
    means = {f"{name}_{NAMES[k]}": totals[k] / counts[k] for k in range(4) if counts[k] > 0}
    return {name: totals.sum() / counts.sum(), **means}
