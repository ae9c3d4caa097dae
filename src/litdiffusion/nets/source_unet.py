"""The U-Net of the MNIST source: residual blocks, mean pooling, an embedding of the noise label at every resizing."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from litdiffusion.errors import UserError
from litdiffusion.nets.conditions import condition_embedding
from litdiffusion.parts.described import Described

NORMS = {
    "group": lambda channels: nn.GroupNorm(next(g for g in range(8, 0, -1) if channels % g == 0), channels),
    # One group per channel is instance norm with affine parameters, without buffers.
    "instance": lambda channels: nn.GroupNorm(channels, channels),
    "none": lambda channels: nn.Identity(),
}


class ResidualBlock(nn.Module):
    """``norm(conv(relu(norm(conv(x))))) + conv1x1(x)``; (B, inputs, H, W) -> (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, norm: str):
        super().__init__()
        self.long = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            NORMS[norm](outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            NORMS[norm](outputs),
        )
        self.short = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.long(x) + self.short(x)


class SinusoidalEmbedding(nn.Module):
    """``[sin(w_i * noise_label), cos(w_i * noise_label)]``, ``w_i = base^(-2i / dim)``, i = 1..dim/2; (B,) -> (B, dim).

    Source: Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762 (there base 10000 and i from 0).
    """

    def __init__(self, dim: int, base: float):
        super().__init__()
        if dim < 2 or dim % 2:
            raise UserError(f"model.embedding_dim must be even and at least 2, got {dim}")
        self.dim, self.base = dim, base

    def forward(self, noise_label: Tensor) -> Tensor:
        # Not a buffer, because a net in half precision would round it.
        exponents = 2 * torch.arange(1, self.dim // 2 + 1, device=noise_label.device).to(noise_label.dtype) / self.dim
        phase = noise_label[:, None] * self.base**-exponents
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class SourceUNet(Described, nn.Module):
    """Halves the image size ``depth`` times and restores it, with skip connections.

    - First layer: 1x1 convolution to c / 2 channels.
    - Down, stage i = 1..depth: residual block to ``c * 2^(i-1)`` channels, whose output is the skip; mean pooling; a
      linear map of the embedding is added.
    - Base: residual block to ``c * (depth + 1)`` channels.
    - Up, stage i = depth..1: a linear map of the embedding is added; resizing to the skip's size; residual block to the
      skip's channels; concatenation with the skip; residual block to half the skip's channels.
    - Last layer: 1x1 convolution to the output channels.

    Args:
        shape: (channels, height, width) of one sample; each side at least 2^depth; sides may be odd or differ.
        base_channels: c, even.
        depth: number of contractions.
        embedding_dim: size of the sinusoidal embedding of the noise label.
        embedding_base: the longest wavelength of the embedding is 2 pi times this, in units of the noise label.
        norm: "group" (8 groups, fewer where 8 does not divide the width), "instance" or "none". Instance norm removes
            each channel's mean and with it the overall brightness: some samples then have a grey background.
        out_channels: channels of the output, if they are not shape[0] (learned variance).
        num_classes: K; a learned vector for the class is added to the embedding. 0: ``class_label`` is ignored.
        conditions: continuous conditions, see `nets.conditions`; none: ``class_label`` holds classes alone.

    Shapes: x (B, *shape), noise_label (B,), class_label (B,), (B, C) or None (see `nets.conditions`)
    -> (B, out_channels, *shape[1:]).

    Source: Ronneberger, Fischer, Brox, "U-Net", 2015, arXiv 1505.04597.
    """

    def __init__(
        self,
        shape: Sequence[int],
        base_channels: int = 32,
        depth: int = 3,
        embedding_dim: int = 16,
        embedding_base: float = 100_000.0,
        norm: str = "group",
        out_channels: int | None = None,
        num_classes: int = 0,
        conditions: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__()
        _check(shape, base_channels, depth, norm)
        widths = [base_channels * 2**i for i in range(depth)]
        arriving = [*widths[:-1], base_channels * (depth + 1)]
        self.embedding = SinusoidalEmbedding(embedding_dim, embedding_base)
        self.first = nn.Conv2d(shape[0], base_channels // 2, 1)
        entering = [base_channels // 2, *widths[:-1]]
        self.contract = nn.ModuleList(ResidualBlock(i, o, norm) for i, o in zip(entering, widths, strict=True))
        self.time_down = nn.ModuleList(nn.Linear(embedding_dim, width) for width in widths)
        self.base = ResidualBlock(widths[-1], arriving[-1], norm)
        self.time_up = nn.ModuleList(nn.Linear(embedding_dim, width) for width in arriving)
        self.expand = nn.ModuleList(ResidualBlock(i, o, norm) for i, o in zip(arriving, widths, strict=True))
        self.merge = nn.ModuleList(ResidualBlock(2 * width, width // 2, norm) for width in widths)
        self.last = nn.Conv2d(base_channels // 2, out_channels or shape[0], 1)
        self.class_embedding = condition_embedding(num_classes, embedding_dim, conditions)

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        embedding = self.embedding(noise_label).to(x.dtype)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(class_label, noise_label)
        skips = []
        h = self.first(x)
        for block, time_map in zip(self.contract, self.time_down, strict=True):
            h = block(h)
            skips.append(h)
            h = avg_pool2d(h, 2) + time_map(embedding)[:, :, None, None]
        h = self.base(h)
        for stage in reversed(range(len(skips))):
            h = h + self.time_up[stage](embedding)[:, :, None, None]
            h = interpolate(h, size=skips[stage].shape[-2:], mode="bilinear")
            h = torch.cat([self.expand[stage](h), skips[stage]], dim=1)
            h = self.merge[stage](h)
        return self.last(h)


def _check(shape: Sequence[int], base_channels: int, depth: int, norm: str) -> None:
    if len(shape) != 3:
        raise UserError(
            f"model=source_unet needs image data of shape (channels, height, width), got {tuple(shape)}; take "
            f"model=mlp, or image data such as data=digits"
        )
    if depth < 1 or min(shape[1:]) < 2**depth:
        raise UserError(
            f"model.depth must be at least 1 and 2^depth at most the shorter side, got depth {depth} for images of "
            f"{shape[1]} x {shape[2]}; set model.depth={max(1, min(shape[1:]).bit_length() - 1)} or less"
        )
    if norm == "instance" and min(shape[1:]) < 2 ** (depth + 1):
        raise UserError(
            f"model.norm=instance removes single pixels, the size of {shape[1]} x {shape[2]} images at depth {depth}; "
            f"take model.norm=group, or a smaller model.depth"
        )
    if base_channels < 2 or base_channels % 2:
        raise UserError(f"model.base_channels must be even and at least 2, got {base_channels}")
    if norm not in NORMS:
        raise UserError(f"model.norm must be one of {', '.join(NORMS)}, got {norm!r}")
