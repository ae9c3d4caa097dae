"""Does a sampler copy its training data? Nearest neighbours, calibrated by items it never saw."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.measure.distances.estimate import Estimate

BLOCK = 1024
"""Items taken at a time on either side: 8 MB of distances in float64."""


class Nearest(NamedTuple):
    """Euclidean distance (n,), in float64, of each item to its nearest training item, and that one's index (n,)."""

    distances: Tensor
    indices: Tensor


class Copying(NamedTuple):
    """The outcome of `copying_check`, with the nearest training item of every sample for a picture.

    ``share`` of the samples are within ``threshold`` of a training item, where ``expected`` is usual for new
    items; ``ratio`` is the median distance of samples over that of held-out items.
    """

    share: Estimate
    expected: float
    ratio: float
    threshold: float
    nearest: Nearest


def nearest(x: Tensor, train: Tensor) -> Nearest:
    """The nearest training item (m, ...) of each item (n, ...), by the Euclidean distance of flattened items.

    The distance is recomputed from the difference, so an exact copy is at 0. Memory is bounded, also for
    thousands of images; time is O(n·m·d). Raises ValueError on unequal item shapes, empty sets
    and non-finite values.
    """
    if x.shape[1:] != train.shape[1:] or not len(x) or not len(train):
        raise ValueError(f"items must be non-empty (n, ...) and (m, ...), got {tuple(x.shape)}, {tuple(train.shape)}")
    if not (x.isfinite().all() and train.isfinite().all()):
        raise ValueError("items hold non-finite values: the sampler diverged; look at its trajectory picture")
    parts = [_nearest(block, train) for block in x.detach().split(BLOCK)]
    return Nearest(*(torch.cat(part) for part in zip(*parts, strict=True)))


def copying_check(samples: Tensor, train: Tensor, held_out: Tensor, quantile: float = 0.01) -> Copying:
    """The share of samples (n, ...) nearer to the training set than the nearest 1 % of held-out items (h, ...).

    The threshold is the ``round(quantile·h)``-th smallest distance of a held-out item to the training set, so a
    new item is within it with probability ``expected = round(quantile·h) / (h + 1)``. A larger share tells of
    copying, 1 of copies alone; a share near 0 with a ratio above 1 of samples that are far from all data.
    The spread adds the variance of the share of n samples, ``p (1 - p) / n``, and that of the threshold, ``q (1
    - q) / h``: exact to first order where nothing is copied. Source, the comparison with held-out data: A
    Non-Parametric Test to Detect Data-Copying in Generative Models, Meehan, Chaudhuri, Dasgupta 2020, arXiv
    2004.05675. Raises ValueError where h < 1 / quantile, and where half of them are training items.
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


def _nearest(x: Tensor, train: Tensor) -> Nearest:
    """`nearest` for one block of items; the training set passes in float64 block by block."""
    origin = x[0].double().flatten()
    items = x.double().flatten(1) - origin
    closest = [torch.cdist(items, _rows(block, items) - origin).min(dim=1) for block in train.detach().split(BLOCK)]
    first = torch.stack([found.values for found in closest]).argmin(dim=0)
    within = torch.stack([found.indices for found in closest]).gather(0, first[None])[0]
    indices = first * BLOCK + within
    chosen = _rows(train.detach()[indices.to(train.device)], items)
    return Nearest((x.double().flatten(1) - chosen).norm(dim=1), indices)


def _rows(items: Tensor, like: Tensor) -> Tensor:
    """Items (n, ...) as rows (n, d) of the dtype and on the device of ``like``."""
    return items.flatten(1).to(like)
