"""A training batch."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A training batch: ``data`` (B, *shape), integer class ``label`` (B,) or None where the set has no classes."""

    data: Tensor
    label: Tensor | None = None
