"""A training batch."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of items.

    ``data`` is (B, *shape), ``class_label`` (B,) of integers, or None for data without classes, and ``conditions``
    (B, D) the numbers that a model is told of each item, or None, see `litdiffusion.data.conditions`.
    """

    data: Tensor
    class_label: Tensor | None = None
    conditions: Tensor | None = None
