"""How a net is told continuous conditions, alone or beside the class.

For a model with conditions ``class_label`` is a float tensor (B, C): first a column with the class, if there are
classes, then a column for each condition in the order of ``conditions``, in its own units. NaN means "not told", and
None means that nothing is told for the whole batch. For a model with classes alone it holds whole numbers (B,), see
`nets.classes`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from litdiffusion.nets.classes import ClassEmbedding

Conditions = Sequence[Mapping[str, Any]]
"""``mean`` and ``std`` of each condition, see `litdiffusion.data.conditions.condition_scales`."""
FREQUENCIES = 4
"""Frequencies of a condition: periods of 8, 4, 2 and 1 deviations. With 6 a linear-Gaussian was learned less well."""


class ValueEmbedding(nn.Module):
    """``W [z, cos(w_k z), sin(w_k z)]`` with ``z = (value - mean) / std``, ``w_k = pi / 4 * 2^k``; a vector for NaN.

    W and the vector for NaN ("not told") are learned. Both begin with entries of deviation 1, like those of
    `ClassEmbedding`, which are learned sooner than zeros. A value far outside of the training data has the vector of
    no value that was learned.

    Args:
        dim: size of the vector.
        mean, std: of the training items' values; ``std`` above 0.

    Shapes: value (B,), at least float32 -> (B, dim) in the dtype of the weights.

    Source: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains",
    2020, arXiv 2006.10739.
    """

    def __init__(self, dim: int, mean: float, std: float):
        super().__init__()
        self.mean, self.std = float(mean), float(std)
        self.linear = nn.Linear(1 + 2 * FREQUENCIES, dim, bias=False)
        nn.init.normal_(self.linear.weight, std=(1 + FREQUENCIES) ** -0.5)  # z² is 1 on average, cos² + sin² is 1
        self.none = nn.Parameter(torch.randn(dim))

    def forward(self, value: Tensor) -> Tensor:
        missing = value.isnan()
        z = (value.where(~missing, self.mean) - self.mean) / self.std  # before it meets a weight: NaN * 0 is NaN
        # Not a buffer, because a net in half precision would round it.
        phase = z[:, None] * (math.pi / 4 * 2.0 ** torch.arange(FREQUENCIES, device=z.device, dtype=z.dtype))
        features = torch.cat([z[:, None], phase.cos(), phase.sin()], dim=1)
        return torch.where(missing[:, None], self.none, self.linear(features.to(self.linear.weight.dtype)))


class ConditionEmbedding(nn.Module):
    """The sum of the vectors of the class (`ClassEmbedding`) and of each condition (`ValueEmbedding`).

    Args:
        num_classes: K; 0: ``class_label`` has no column of classes.
        dim: size of each vector.
        conditions: ``mean`` and ``std`` of each condition, see `litdiffusion.data.conditions.condition_scales`.

    Shapes: class_label (B, C) or None, noise_label (B,) -> (B, dim). ``noise_label`` is read only without class_label.
    """

    def __init__(self, num_classes: int, dim: int, conditions: Conditions):
        super().__init__()
        self.classes = ClassEmbedding(num_classes, dim) if num_classes else None
        self.values = nn.ModuleList(ValueEmbedding(dim, scale["mean"], scale["std"]) for scale in conditions)
        self.columns = len(self.values) + (num_classes > 0)

    def forward(self, class_label: Tensor | None, noise_label: Tensor | None = None) -> Tensor:
        class_label = as_columns(class_label, noise_label, self.columns)
        *first, columns = class_label.split([self.columns - len(self.values), len(self.values)], dim=1)
        total = sum(embed(value) for embed, value in zip(self.values, columns.unbind(1), strict=True))
        if self.classes is not None:
            number = first[0][:, 0]
            number = number.where(~number.isnan(), self.classes.num_classes).long()
            total = total + self.classes(number, noise_label)
        return total


def as_columns(class_label: Tensor | None, noise_label: Tensor | None, columns: int) -> Tensor:
    """``class_label`` itself; for None, NaN ("not told") in all columns for each of the noise labels (B,)."""
    missing = class_label is None
    return torch.full((len(noise_label), columns), torch.nan, device=noise_label.device) if missing else class_label


def condition_embedding(num_classes: int, dim: int, conditions: Conditions = ()) -> nn.Module | None:
    """A net's embedding of ``class_label``: called with (class_label, noise_label), it returns (B, dim).

    `ClassEmbedding` for classes alone, whose weights keep their names; None where there is nothing to tell.
    """
    if conditions:
        return ConditionEmbedding(num_classes, dim, conditions)
    return ClassEmbedding(num_classes, dim) if num_classes else None
