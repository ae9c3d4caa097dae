"""An MLP of residual blocks for vectors, which sees Fourier features of the coordinates and of the noise label."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from litdiffusion.errors import UserError
from litdiffusion.nets.blocks import Conditioning, RMSNorm, zeroed
from litdiffusion.nets.conditions import Conditions
from litdiffusion.nets.sizes import check_dropout, check_sizes
from litdiffusion.parts.described import Described

REACH = 4.0
"""The features have periods of ``2 * REACH`` and fractions of it: standardised coordinates lie within 4 of 0."""


class CoordinateFeatures(nn.Module):
    """``[x, cos(pi k x / 4), sin(pi k x / 4)]``, k = 1..terms, for each coordinate; (B, d) -> (B, d (1 + 2 terms)).

    Source: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains",
    2020, arXiv 2006.10739, with the frequencies of a Fourier series in place of random ones.
    """

    def __init__(self, terms: int):
        super().__init__()
        self.terms = terms

    def forward(self, x: Tensor) -> Tensor:
        # In float32, because a phase in half precision has errors of a tenth.
        k = torch.arange(1, self.terms + 1, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
        phase = (x[..., None] * (math.pi / REACH * k)).flatten(1)
        return torch.cat([x, phase.cos().to(x.dtype), phase.sin().to(x.dtype)], dim=1)


class Block(nn.Module):
    """``x + second(dropout(silu((1 + a) first(norm(x)) + b)))`` with a and b linear in the conditioning.

    The second layer, a and b start at zero, so that the block starts as the identity. (B, hidden), (B, dim) ->
    (B, hidden).

    Source: a and b: Perez et al., "FiLM", 2017, arXiv 1709.07871.
    """

    def __init__(self, hidden: int, dim: int, dropout: float):
        super().__init__()
        self.norm = RMSNorm(hidden)
        self.first = nn.Linear(hidden, hidden)
        self.scale_and_shift = zeroed(nn.Linear(dim, 2 * hidden))
        self.dropout = nn.Dropout(dropout)
        self.second = zeroed(nn.Linear(hidden, hidden))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        a, b = self.scale_and_shift(conditioning).chunk(2, dim=1)
        return x + self.second(self.dropout(silu(torch.addcmul(b, self.first(self.norm(x)), 1 + a))))


class ResidualMLP(Described, nn.Module):
    """``last(silu(norm(block(... block(first(features(x)))))))``; every block is scaled by noise label and class.

    Args:
        shape: shape of one sample; the net flattens x and restores the shape of its output.
        noise_label_range: the smallest and the largest noise label.
        hidden: width of the blocks.
        blocks: number of residual blocks.
        terms: Fourier features of a coordinate, a cosine and a sine each; 0: the coordinates alone.
        embedding_dim: size of the embedding of noise label and class.
        dropout: share of activations that a block drops in training.
        out_channels: size of the output's first dimension, if it is not shape[0] (learned variance).
        num_classes: K; a learned vector for the class is added to the embedding. 0: ``class_label`` is ignored.
        conditions: continuous conditions, whose vectors are added to that of the class, see `nets.conditions`.

    Shapes: x (B, *shape), noise_label (B,), class_label (B,) or None (see `nets.classes`)
    -> (B, out_channels, *shape[1:]).

    Raises:
        UserError: for sizes below 1 (``terms``: 0), and a dropout outside of [0, 1).

    Source: He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv 1512.03385.
    """

    def __init__(
        self,
        shape: Sequence[int],
        noise_label_range: tuple[float, float],
        hidden: int = 128,
        blocks: int = 3,
        terms: int = 8,
        embedding_dim: int = 64,
        dropout: float = 0.0,
        out_channels: int | None = None,
        num_classes: int = 0,
        conditions: Conditions = (),
    ):
        super().__init__()
        _check(dropout, hidden=hidden, blocks=blocks, terms=terms, embedding_dim=embedding_dim)
        size, self.out_shape = math.prod(shape), (out_channels or shape[0], *shape[1:])
        self.conditioning = Conditioning(embedding_dim, noise_label_range, num_classes, conditions)
        self.features = CoordinateFeatures(terms)
        self.first = nn.Linear(size * (1 + 2 * terms), hidden)
        self.blocks = nn.ModuleList(Block(hidden, embedding_dim, dropout) for _ in range(blocks))
        self.norm = RMSNorm(hidden)
        self.last = zeroed(nn.Linear(hidden, math.prod(self.out_shape)))

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        conditioning = self.conditioning(noise_label, class_label, x.dtype)
        h = self.first(self.features(x.flatten(1)))
        for block in self.blocks:
            h = block(h, conditioning)
        return self.last(silu(self.norm(h))).view(-1, *self.out_shape)


def _check(dropout: float, terms: int, **sizes: int) -> None:
    check_sizes(**sizes)
    if not isinstance(terms, int) or terms < 0:
        raise UserError(f"model.terms must be a whole number of at least 0, got {terms}")
    check_dropout(dropout)
