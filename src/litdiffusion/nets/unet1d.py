"""A U-Net of 1-D convolutions for sequences of any length."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from litdiffusion.errors import UserError
from litdiffusion.nets.blocks import HEAD, Attention, Conditioning, ResidualBlock, RMSNorm, padded, zeroed
from litdiffusion.nets.conditions import Conditions
from litdiffusion.nets.sizes import check_dropout, check_sizes, check_widths
from litdiffusion.parts.described import Described


class UNet1d(Described, nn.Module):
    """Halves the length at each further level and restores it, with skip connections; the blocks are those of `UNet`.

    - A convolution of width 3 to the first width.
    - Down, level by level: ``blocks`` residual blocks, the last of which is the skip; a convolution of two places into
      one, to the next width. Attention follows the blocks of the last level.
    - Up: the inverse, concatenation with the skip, ``blocks`` residual blocks.
    - ``silu(norm)``; a convolution of width 3, which starts at zero, to the output channels.

    Lengths that are no multiples of ``2^(levels - 1)`` are padded with zeros at the end, and the output is cropped.

    Args:
        shape: (channels, length) of one sample.
        noise_label_range: the smallest and the largest noise label.
        channels: width of each level, from the full length on; with attention the last is a multiple of 32, or below.
        blocks: residual blocks of a level, each way.
        attention: whether the last level has attention over all of its places.
        embedding_dim: size of the embedding of noise label and class.
        dropout: share of activations that a block drops in training.
        out_channels: channels of the output, if they are not shape[0] (learned variance).
        num_classes: K; a learned vector for the class is added to the embedding. 0: ``class_label`` is ignored.
        conditions: continuous conditions, whose vectors are added to that of the class, see `nets.conditions`.

    Shapes: x (B, *shape), noise_label (B,), class_label (B,) or None (see `nets.classes`)
    -> (B, out_channels, shape[1]).

    Raises:
        UserError: for data that are no sequences, and for sizes that do not fit each other.

    Source: Ronneberger, Fischer, Brox, "U-Net", 2015, arXiv 1505.04597; for sequences: Janner et al., "Planning with
    Diffusion for Flexible Behavior Synthesis", 2022, arXiv 2205.09991.
    """

    def __init__(
        self,
        shape: Sequence[int],
        noise_label_range: tuple[float, float],
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        attention: bool = True,
        embedding_dim: int = 128,
        dropout: float = 0.0,
        out_channels: int | None = None,
        num_classes: int = 0,
        conditions: Conditions = (),
    ):
        super().__init__()
        widths = list(channels)
        _check(shape, widths, attention, dropout, blocks=blocks, embedding_dim=embedding_dim)
        self.multiple = 2 ** (len(widths) - 1)

        def stage(first: int, width: int) -> nn.ModuleList:
            inputs = [first, *[width] * (blocks - 1)]
            return nn.ModuleList(ResidualBlock(i, width, embedding_dim, dropout, nn.Conv1d) for i in inputs)

        self.conditioning = Conditioning(embedding_dim, noise_label_range, num_classes, conditions)
        self.first = nn.Conv1d(shape[0], widths[0], 3, padding=1)
        self.down = nn.ModuleList(stage(width, width) for width in widths)
        self.contract = nn.ModuleList(nn.Conv1d(i, o, 2, stride=2) for i, o in pairwise(widths))
        self.attention = Attention(widths[-1], nn.Conv1d) if attention else nn.Identity()
        self.expand = nn.ModuleList(nn.ConvTranspose1d(o, i, 2, stride=2) for i, o in pairwise(widths))
        self.up = nn.ModuleList(stage(2 * width, width) for width in widths[:-1])
        self.norm = RMSNorm(widths[0])
        self.last = zeroed(nn.Conv1d(widths[0], out_channels or shape[0], 3, padding=1))

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        embedding = self.conditioning(noise_label, class_label, x.dtype)
        h = self.first(padded(x, self.multiple))
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.contract[level - 1](h)
            for block in stage:
                h = block(h, embedding)
        h = self.attention(h)
        for expand, stage in zip(reversed(self.expand), reversed(self.up), strict=True):
            h = torch.cat([expand(h), skips.pop()], dim=1)
            for block in stage:
                h = block(h, embedding)
        return self.last(silu(self.norm(h)))[..., : x.shape[-1]]


def _check(shape: Sequence[int], widths: list[int], attention: bool, dropout: float, **sizes: int) -> None:
    if len(shape) != 2:
        raise UserError(
            f"model=unet1d needs sequences of shape (channels, length), got {tuple(shape)}; take model=mlp for "
            f"vectors, model=unet for images, or data=profiles"
        )
    check_widths(widths)
    check_sizes(**sizes)
    if attention and widths[-1] > HEAD and widths[-1] % HEAD:
        raise UserError(
            f"model.channels={widths}: attention needs a last width that is a multiple of {HEAD}, or less than it; "
            f"change it, or set model.attention=false"
        )
    check_dropout(dropout)
    if 2 ** (len(widths) - 1) > shape[1]:
        raise UserError(
            f"model.channels={widths} halves a sequence of {shape[1]} places to less than one; take fewer levels"
        )
