"""A training batch."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of items: ``data`` (B, *shape) and integer ``class_label`` (B,), or None for a set without classes."""

    data: Tensor
    class_label: Tensor | None = None
