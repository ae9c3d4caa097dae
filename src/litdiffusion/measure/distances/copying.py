"""Copies of training data among samples: nearest neighbours, calibrated by held-out items."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.measure.distances.estimate import Estimate

BLOCK = 1024
"""Items whose distances are recomputed at a time."""


class Nearest(NamedTuple):
    """The float64 distance (n,) of each item to its nearest training item, and the index (n,) of that training item."""

    distances: Tensor
    indices: Tensor


class Copying(NamedTuple):
    """The result of `copying_check`.

    ``share`` is the share of samples within ``threshold`` of a training item, and ``expected`` is this share for new
    items. ``ratio`` is the median distance of samples divided by the median distance of held-out items. ``nearest``
    are the nearest training items of the samples.
    """

    share: Estimate
    expected: float
    ratio: float
    threshold: float
    nearest: Nearest


def nearest(x: Tensor, train: Tensor) -> Nearest:
    """The nearest training item (m, ...) of each item (n, ...) by Euclidean distance, in float64 on the CPU.

    The distance is recomputed from the difference, so an exact copy has distance 0. Time is O(n·m·d). Memory is
    bounded apart from the items.

    Raises:
        ValueError: for unequal item shapes, empty sets, or non-finite values.
    """
    from sklearn.metrics import pairwise_distances_argmin

    if x.shape[1:] != train.shape[1:] or not len(x) or not len(train):
        raise ValueError(f"items must be non-empty (n, ...) and (m, ...), got {tuple(x.shape)}, {tuple(train.shape)}")
    if not (x.isfinite().all() and train.isfinite().all()):
        raise ValueError("items hold non-finite values: the sampler diverged; look at its trajectory picture")
    # scikit-learn takes float32 without a copy and computes it in blocks of float64.
    dtype = torch.float32 if x.dtype == train.dtype == torch.float32 else torch.float64
    rows, others = (items.detach().cpu().flatten(1).to(dtype) for items in (x, train))
    indices = torch.from_numpy(pairwise_distances_argmin(rows.numpy(), others.numpy()))
    blocks = zip(rows.split(BLOCK), indices.split(BLOCK), strict=True)
    distances = [(block.double() - others[index].double()).norm(dim=1) for block, index in blocks]
    return Nearest(torch.cat(distances), indices)


def copying_check(samples: Tensor, train: Tensor, held_out: Tensor, quantile: float = 0.01) -> Copying:
    """The share of samples (n, ...) nearer to the training set than the nearest 1 % of held-out items (h, ...).

    The threshold is the ``round(quantile·h)``-th smallest distance of a held-out item to the training set. A new item
    is within it with probability ``expected = round(quantile·h) / (h + 1)``. A larger share means copying, and 1 means
    copies only. A share near 0 with a ratio above 1 means samples far from all data.

    The variance of the share is the sum of ``p (1 - p) / n`` for n samples and ``q (1 - q) / h`` for the threshold,
    with p the share and q its expectation. It is exact to first order for samples that are no copies.

    Raises:
        ValueError: if ``h < 1 / quantile``, or if half of the held-out items are training items.

    Source of the comparison with held-out data: Meehan, Chaudhuri, Dasgupta, "A Non-Parametric Test to Detect
    Data-Copying in Generative Models", 2020, arXiv 2004.05675.
    """
    # A quantile of 1 / h is one item, whatever the rounding (49 · (1 / 49) < 1).
    if not 0 < quantile < 1 or len(held_out) * quantile < 1 - 1e-9:
        raise ValueError(
            f"{len(held_out)} held-out items are too few for the quantile {quantile} in (0, 1): hold out more"
        )
    found, known = nearest(samples, train), nearest(held_out, train).distances.sort().values
    median = float(known.median())
    if median == 0:
        raise ValueError("half of the held-out items are in the training set: hold out other data")
    rank = round(quantile * len(known))
    threshold, expected = float(known[rank - 1]), rank / (len(known) + 1)
    share = float((found.distances <= threshold).double().mean())
    spread = math.sqrt(share * (1 - share) / len(samples) + expected * (1 - expected) / len(known))
    ratio = float(found.distances.median()) / median
    return Copying(Estimate(share, spread, len(samples)), expected, ratio, threshold, found)
