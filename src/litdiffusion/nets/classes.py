"""The class of a sample, as every net here is told it.

The one convention of ``cond``: whole numbers (B,), of which 0 to K - 1 name a class and K says "no class"; None says
"no class" of the whole batch. A net without classes (K = 0) does not look at ``cond``.
"""

import torch
from torch import Tensor, nn

from litdiffusion.errors import UserError


class ClassEmbedding(nn.Module):
    """``E[cond]``: a learned vector for each of K classes, and a last one for "no class".

    They begin standard normal, as large as what tells a net its noise. From zeros, which leave a new net as it was,
    classes are learned much later: 8x8 digits after 700 steps were of the class asked for in 30 % of samples, not 89 %.

    Args:
        classes: K, at least 1.
        dim: of the vectors.

    Shapes: cond (B,) or None, label (B,) -> (B, dim).

    Raises:
        UserError: fewer than one class.
    """

    def __init__(self, classes: int, dim: int):
        super().__init__()
        if classes < 1 or dim < 1:
            raise UserError(f"a table of classes needs classes and numbers of at least 1, got {classes} and {dim}")
        self.classes = classes
        self.table = nn.Embedding(classes + 1, dim)

    def forward(self, cond: Tensor | None, label: Tensor) -> Tensor:
        return self.table(as_classes(cond, label, self.classes))


def as_classes(cond: Tensor | None, label: Tensor, classes: int) -> Tensor:
    """``cond`` itself, or instead of None "no class" for each of the noise labels (B,)."""
    return torch.full_like(label, classes, dtype=torch.long) if cond is None else cond
