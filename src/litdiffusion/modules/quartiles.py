"""The loss seen by quartile of time: where along the noise scale a model is good or bad."""

import torch
from torch import Tensor

NAMES = ("t_0_25", "t_25_50", "t_50_75", "t_75_100")


def quartile_means(t: Tensor, values: Tensor) -> dict[str, Tensor]:
    """Means of ``values`` (B,) over the samples with t (B,) in (0, 1/4], ..., (3/4, 1]; empty quartiles left out."""
    index = (4 * t).ceil().clamp(1, 4).long() - 1
    counts = torch.bincount(index, minlength=4)
    sums = torch.zeros(4, dtype=values.dtype, device=values.device).index_add_(0, index, values)
    return {name: sums[k] / counts[k] for k, name in enumerate(NAMES) if counts[k] > 0}
