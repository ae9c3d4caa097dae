"""The first items of anybody's loader, from which facts about its data are inferred."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from litdiffusion.data.base import as_batch, check_finite
from litdiffusion.data.batch import Batch
from litdiffusion.data.conditions import check_conditions
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError

MAX_VECTORS, MAX_IMAGES, MAX_BYTES = 10_000, 2_000, 2**28
"""Largest number of vectors, of images, and of bytes that are kept of each part for pictures and measurements."""


class FirstItems(NamedTuple):
    """The first items of a loader, in data space; ``complete``: whether the loader has no others."""

    items: Batch
    complete: bool


@contextmanager
def fixed_randomness() -> Iterator[None]:
    """Fixes all seeds inside the block, so that it sees the same items each time; restores the run's random state."""
    with isolate_rng(include_cuda=False):
        seed = fold_seed(0, "facts") % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def first_items(loaders: Any, part: str) -> FirstItems:
    """The first items of a loader, or of the first of several; ``part`` names them in messages.

    Raises:
        UserError: no batch, items of several shapes, values that are not finite, or bad conditions.
    """
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    batches, complete = _first_batches(loader)
    if not batches:
        raise UserError(
            f"data: the {part} loader returns no batch, but at least one is needed; add items, or set drop_last=False "
            f"for data smaller than one batch"
        )
    shapes = {tuple(batch.data.shape[1:]) for batch in batches}
    if len(shapes) > 1:
        raise UserError(f"data: {part} items have several shapes, {sorted(shapes)[:3]}; resize them in a transform")
    data = torch.cat([batch.data for batch in batches])
    check_finite(part, data)
    conditions = [batch.conditions for batch in batches]
    joined = None if any(values is None for values in conditions) else torch.cat(conditions)
    if joined is not None:
        check_conditions(f"the {part} data", [str(i) for i in range(joined.shape[1])], joined)
    return FirstItems(Batch(data, _joined_class_labels(batches), joined), complete)


def _first_batches(loader: Iterable[Any]) -> tuple[list[Batch], bool]:
    """The first batches, and whether the loader has no others."""
    batches: list[Batch] = []
    count = size = 0
    for batch in loader:
        batches.append(as_batch(batch))
        data = batches[-1].data
        count, size = count + len(data), size + data.nbytes
        if count >= (MAX_VECTORS if data.ndim == 2 else MAX_IMAGES) or size >= MAX_BYTES:
            return batches, False
    return batches, True


def _joined_class_labels(batches: list[Batch]) -> Tensor | None:
    """The class labels (N,) of all batches, or None unless every batch has one integer for each item."""
    class_labels = [batch.class_label for batch in batches]
    if not all(
        isinstance(x, Tensor) and x.ndim == 1 and not (x.is_floating_point() or x.is_complex()) for x in class_labels
    ):
        return None
    return torch.cat(class_labels).long()
