"""A training batch."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of items: ``data`` (B, *shape), and ``class_label`` (B,) of integers or None for data without classes."""

    data: Tensor
    class_label: Tensor | None = None
