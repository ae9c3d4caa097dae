"""What every comparison of two samples needs: a check of both, and pairwise distances in bounded memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

ENTRIES = 1 << 20
"""The size of a block of pairwise distances: 8 MB in float64."""


def checked_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both samples (n, d) and (m, d) in float64, refused where a distance would have no meaning."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"samples must be non-empty (n, d) and (m, d), got {tuple(x.shape)}, {tuple(y.shape)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("samples hold non-finite values: the sampler diverged; look at its trajectory picture")
    return x.detach().double(), y.detach().to(x.device).double()


def centred_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`checked_pair`, moved by one vector so that the mean of y is 0.

    Pairwise distances come from ``|x|² + |y|² - 2 x·y``, which loses digits far from the origin.
    """
    x, y = checked_pair(x, y)
    mean = y.mean(dim=0)
    return x - mean, y - mean


def distance_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of x (n, d) to y (m, d) as blocks of rows: (rows, distances (rows, m)) in order."""
    size = max(1, ENTRIES // len(y))
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        yield rows, torch.cdist(x[rows], y)
