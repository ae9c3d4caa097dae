"""What several nets are built of: the embedding of noise label and class, and blocks for images and sequences."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu

from litdiffusion.nets.conditions import Conditions, condition_embedding

HEAD = 32
"""Channels of one head of attention."""
TERMS = 16
"""Frequencies of the noise embedding."""
SMALL = 16
"""Images with a side below this are not divided into patches by default."""
Convolution = type[nn.Conv1d] | type[nn.Conv2d]


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all of its parameters at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def patch_side(shape: Sequence[int], patch: int | None) -> int:
    """Side of the patches of images (C, H, W): ``patch``; None: 2, or 1 for images with a side below 16."""
    return patch or (1 if min(shape[1:]) < SMALL else 2)


def padded(x: Tensor, multiple: int) -> Tensor:
    """x (B, C, *sides) with zeros behind the end of each side, up to the next multiple."""
    behind = [-side % multiple for side in x.shape[2:]]
    return pad(x, [n for count in reversed(behind) for n in (0, count)]) if any(behind) else x


class FourierEmbedding(nn.Module):
    """``[cos(pi k u), sin(pi k u)]``, k = 1..terms, with u the noise label on [0, 1]; (B,) -> (B, 2 terms).

    Args:
        terms: number of frequencies; the highest has ``terms / 2`` periods over the range of noise labels.
        label_range: the smallest and the largest noise label, mapped to 0 and 1; equal ones are mapped to 0.
    """

    def __init__(self, terms: int, label_range: tuple[float, float]):
        super().__init__()
        self.terms, (self.low, high) = terms, label_range
        self.span = high - self.low or 1.0

    def forward(self, noise_label: Tensor) -> Tensor:
        # Not a buffer, because a net in half precision would round it.
        k = torch.arange(1, self.terms + 1, device=noise_label.device, dtype=noise_label.dtype)
        phase = (noise_label[:, None] - self.low) / self.span * (math.pi * k)
        return torch.cat([phase.cos(), phase.sin()], dim=1)


class Conditioning(nn.Module):
    """``silu(layers(fourier(noise_label)) + E[class_label])``: the vector that scales the blocks of a net.

    Args:
        dim: size of the vector.
        noise_label_range: the smallest and the largest noise label.
        num_classes: K, the number of classes; 0: ``class_label`` has none.
        conditions: ``mean`` and ``std`` of each condition, see `nets.conditions`.

    Shapes: noise_label (B,), class_label (B,) or (B, C) or None -> (B, dim) of type ``dtype``.
    """

    def __init__(self, dim: int, noise_label_range: tuple[float, float], num_classes: int, conditions: Conditions):
        super().__init__()
        self.fourier = FourierEmbedding(TERMS, noise_label_range)
        self.layers = nn.Sequential(nn.Linear(2 * TERMS, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.class_embedding = condition_embedding(num_classes, dim, conditions)

    def forward(self, noise_label: Tensor, class_label: Tensor | None, dtype: torch.dtype) -> Tensor:
        embedding = self.layers(self.fourier(noise_label).to(dtype))
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(class_label, noise_label)
        return silu(embedding)


class RMSNorm(nn.Module):
    """``g * x / sqrt(mean(x²))`` with the mean over the channels of a place and a learned g (C,); (B, C, ...).

    Source: Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv 1910.07467.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt() * self.gain.view(-1, *(1,) * (x.ndim - 2))


class ResidualBlock(nn.Module):
    """``skip(x) + conv(dropout(silu((1 + a) conv(norm(x)) + b)))`` with a and b linear in the embedding.

    ``skip`` is a convolution of width 1 where the widths differ, else the identity. The last convolution, a and b start
    at zero, so that the block starts as ``skip``. (B, inputs, ...), (B, embedding_dim) -> (B, outputs, ...).

    Args:
        inputs, outputs: channels of x and of the output.
        embedding_dim: size of the embedding.
        dropout: share of activations that are dropped in training.
        convolution: that of images (..., H, W), or ``nn.Conv1d`` for sequences (..., L).

    Source: a and b: Perez et al., "FiLM", 2017, arXiv 1709.07871.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding_dim: int, dropout: float, convolution: Convolution = nn.Conv2d
    ):
        super().__init__()
        self.norm = RMSNorm(inputs)
        self.first = convolution(inputs, outputs, 3, padding=1)
        self.scale_and_shift = zeroed(nn.Linear(embedding_dim, 2 * outputs))
        self.dropout = nn.Dropout(dropout)
        self.second = zeroed(convolution(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        a, b = self.scale_and_shift(embedding).view(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, dim=1)
        h = silu(torch.addcmul(b, self.first(self.norm(x)), 1 + a))
        return self.skip(x) + self.second(self.dropout(h))


class Attention(nn.Module):
    """``x + out(attention(norm(x)))`` over all places, in heads of 32 channels; (B, C, ...). ``out`` starts at zero.

    Source: Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762.
    """

    def __init__(self, channels: int, convolution: Convolution = nn.Conv2d):
        super().__init__()
        self.heads = max(1, channels // HEAD)
        self.norm = RMSNorm(channels)
        self.query_key_value = convolution(channels, 3 * channels, 1)
        self.out = zeroed(convolution(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        parts = self.query_key_value(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, -1)
        query, key, value = parts.transpose(-1, -2).unbind(dim=1)
        mixed = scaled_dot_product_attention(query, key, value).transpose(-1, -2)
        return x + self.out(mixed.reshape(x.shape))
