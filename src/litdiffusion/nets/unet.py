"""A small U-Net for images: it works on patches of pixels, in residual blocks that are scaled by time and class."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from litdiffusion.errors import UserError
from litdiffusion.nets.blocks import (
    HEAD,
    TERMS,
    Attention,
    FourierEmbedding,
    ResidualBlock,
    RMSNorm,
    padded,
    patch_side,
    zeroed,
)
from litdiffusion.nets.conditions import condition_embedding
from litdiffusion.nets.sizes import check_dropout, check_sizes, check_widths
from litdiffusion.parts.described import Described


class UNet(Described, nn.Module):
    """Divides the image into patches, halves the size at each further level and restores it, with skip connections.

    - The pixels of each patch become channels; a 3x3 convolution to the first width.
    - Down, level by level: ``blocks`` residual blocks, the last of which is the skip; the pixels of 2x2 squares become
      channels; a 1x1 convolution to the next width. Attention follows the blocks of the chosen levels, each way.
    - Up: the inverse, concatenation with the skip, ``blocks`` residual blocks.
    - ``silu(norm)``; a 3x3 convolution, which starts at zero, to the channels of a patch; the patches become pixels.

    Images whose sides are no multiples of ``patch * 2^(levels - 1)`` are padded with zeros below and to the right, and
    the output is cropped.

    Args:
        shape: (channels, height, width) of one sample.
        noise_label_range: the smallest and the largest noise label.
        channels: width of each level, from the full size on; with attention a multiple of 32, or below it.
        blocks: residual blocks of a level, each way.
        patch: side of a patch; None: 2, or 1 for images with a side below 16.
        attention: the levels that have attention over all of their pixels, counted from 0 (the full size); True: the
            last level, False: none.
        embedding_dim: size of the embedding of noise label and class.
        dropout: share of activations that a block drops in training.
        out_channels: channels of the output, if they are not shape[0] (learned variance).
        num_classes: K; a learned vector for the class is added to the embedding. 0: ``class_label`` is ignored.
        conditions: continuous conditions, see `nets.conditions`; none: ``class_label`` holds classes alone.

    Shapes: x (B, *shape), noise_label (B,), class_label (B,), (B, C) or None (see `nets.conditions`)
    -> (B, out_channels, *shape[1:]).

    Source: Ronneberger, Fischer, Brox, "U-Net", 2015, arXiv 1505.04597; blocks after Dhariwal, Nichol, "Diffusion
    Models Beat GANs on Image Synthesis", 2021, arXiv 2105.05233, with one norm instead of two.
    """

    def __init__(
        self,
        shape: Sequence[int],
        noise_label_range: tuple[float, float],
        channels: Sequence[int] = (48, 96),
        blocks: int = 2,
        patch: int | None = None,
        attention: bool | Sequence[int] = True,
        embedding_dim: int = 128,
        dropout: float = 0.0,
        out_channels: int | None = None,
        num_classes: int = 0,
        conditions: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__()
        _check(shape, channels, blocks, patch, embedding_dim, dropout)
        chosen = _levels(attention, channels)
        self.patch = patch_side(shape, patch)
        self.multiple = self.patch * 2 ** (len(channels) - 1)
        widths, square = list(channels), self.patch**2
        self.noise_embedding = FourierEmbedding(TERMS, noise_label_range)
        self.class_embedding = condition_embedding(num_classes, embedding_dim, conditions)
        self.embedding = nn.Sequential(
            nn.Linear(2 * TERMS, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )

        def stage(first: int, width: int) -> nn.ModuleList:
            inputs = [first, *[width] * (blocks - 1)]
            return nn.ModuleList(ResidualBlock(i, width, embedding_dim, dropout) for i in inputs)

        self.first = nn.Conv2d(shape[0] * square, widths[0], 3, padding=1)
        self.down = nn.ModuleList(stage(width, width) for width in widths)
        self.contract = nn.ModuleList(nn.Conv2d(4 * i, o, 1) for i, o in pairwise(widths))
        self.attention = Attention(widths[-1]) if len(widths) - 1 in chosen else nn.Identity()
        self.expand = nn.ModuleList(nn.Conv2d(o, 4 * i, 1) for i, o in pairwise(widths))
        self.up = nn.ModuleList(stage(2 * width, width) for width in widths[:-1])
        before = [(level in chosen, width) for level, width in enumerate(widths[:-1])]
        self.attention_down = nn.ModuleList(Attention(width) if own else nn.Identity() for own, width in before)
        self.attention_up = nn.ModuleList(Attention(width) if own else nn.Identity() for own, width in before)
        self.norm = RMSNorm(widths[0])
        self.last = zeroed(nn.Conv2d(widths[0], (out_channels or shape[0]) * square, 3, padding=1))

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        embedding = self._embedding(noise_label, class_label, x.dtype)
        h = self.first(pixel_unshuffle(padded(x, self.multiple), self.patch))
        skips: list[Tensor] = []
        for level, (stage, attention) in enumerate(zip(self.down, [*self.attention_down, self.attention], strict=True)):
            if level:
                skips.append(h)
                h = self.contract[level - 1](pixel_unshuffle(h, 2))
            for block in stage:
                h = block(h, embedding)
            h = attention(h)
        for expand, stage, attention in zip(*map(reversed, (self.expand, self.up, self.attention_up)), strict=True):
            h = torch.cat([pixel_shuffle(expand(h), 2), skips.pop()], dim=1)
            for block in stage:
                h = block(h, embedding)
            h = attention(h)
        h = pixel_shuffle(self.last(silu(self.norm(h))), self.patch)
        return h[..., :height, :width]

    def _embedding(self, noise_label: Tensor, class_label: Tensor | None, dtype: torch.dtype) -> Tensor:
        embedding = self.embedding(self.noise_embedding(noise_label).to(dtype))
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(class_label, noise_label)
        return silu(embedding)


def _levels(attention: bool | Sequence[int], channels: Sequence[int]) -> list[int]:
    """The levels with attention."""
    widths, last = list(channels), len(channels) - 1
    levels = [last] * attention if isinstance(attention, bool) else list(attention)
    if not all(isinstance(level, int) and 0 <= level <= last for level in levels):
        raise UserError(
            f"model.attention must be true, false or a list of levels from 0 (the full size) to {last}, got {attention}"
        )
    for level in levels:
        if widths[level] > HEAD and widths[level] % HEAD:
            raise UserError(
                f"model.channels={widths}: attention needs a width that is a multiple of {HEAD}, or less than it, at "
                f"level {level}; change it, or set model.attention=false"
            )
    return levels


def _check(
    shape: Sequence[int],
    channels: Sequence[int],
    blocks: int,
    patch: int | None,
    embedding_dim: int,
    dropout: float,
) -> None:
    if len(shape) != 3:
        raise UserError(
            f"model=unet needs image data of shape (channels, height, width), got {tuple(shape)}; take model=mlp, or "
            f"image data such as data=digits"
        )
    check_widths(channels)
    check_sizes(blocks=blocks, patch=1 if patch is None else patch, embedding_dim=embedding_dim)
    check_dropout(dropout)
    side = patch_side(shape, patch) * 2 ** (len(channels) - 1)
    if side > min(shape[1:]):
        raise UserError(
            f"model.channels={list(channels)} halves the image to less than a pixel: patches and levels need sides of "
            f"at least {side}, got {shape[1]} x {shape[2]}; take fewer levels, or a smaller model.patch"
        )
