"""A training batch."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of items.

    ``data`` is (B, *shape), ``class_label`` (B,) of integers, or None for data without classes, and ``conditions``
    (B, D) the numbers that a model is told of each item, or None, see `litdiffusion.data.conditions`. ``latent`` is
    the data in the model space of the run's codec if it was encoded before, see `litdiffusion.training.latents`.
    """

    data: Tensor
    class_label: Tensor | None = None
    conditions: Tensor | None = None
    latent: Tensor | None = None
