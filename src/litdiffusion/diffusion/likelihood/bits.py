"""Bits per dimension, and 8-bit values as bins of a density."""

import math

import torch
from torch import Tensor

from litdiffusion.diffusion.likelihood.normals import HALF_BIN
from litdiffusion.diffusion.seeding import fold_seed

BYTES = (-1.0, 1.0)
"""The value range of bytes, ``k / 127.5 - 1``; pictures show it where the data declare none."""
BIN = 2 * HALF_BIN
OFF_GRID = 0.05
"""Tolerated distance from a byte value, in steps between two bytes; larger than the rounding of float32."""


def are_bytes(x_0: Tensor) -> bool:
    """Whether every value is one of the 256 byte values ``k / 127.5 - 1``."""
    steps = (x_0 + 1) * 127.5
    return bool(((steps - steps.round().clamp(0, 255)).abs() <= OFF_GRID).all())


def bits_per_dimension(nats: Tensor, coordinates: int) -> Tensor:
    """``nats / (coordinates * ln 2)``, shaped like ``nats``: the code length of an 8-bit item in bits per coordinate.

    Storing the bytes costs 8. ``nats`` is a negative log probability: the total of `variational_bound` with
    ``decoder="8bit"``, which needs no correction, or `byte_nats` of a density.
    """
    return nats / (coordinates * math.log(2))


def dequantised(x_0: Tensor, seed: int = 0) -> Tensor:
    """8-bit values ``k / 127.5 - 1`` (B, ...) plus uniform noise over their bins of width 2/255; same shape.

    Source: Theis, van den Oord, Bethge, "A note on the evaluation of generative models", 2015, arXiv 1511.01844,
    section 3.1 (uniform noise, there on the integers).
    """
    generator = torch.Generator().manual_seed(fold_seed(seed, "dequantisation"))
    uniform = torch.rand(x_0.shape, generator=generator, dtype=x_0.dtype).to(x_0.device)
    return x_0 + BIN * (uniform - 0.5)


def byte_nats(log_density: Tensor, coordinates: int) -> Tensor:
    """``-log p - coordinates * log(2 / 255)``: an upper bound on the nats of bytes from log p at `dequantised` values.

    Shaped like ``log_density``. The mean over the uniform noise bounds the code length by Jensen's inequality,
    ``-log P(bytes) = -log of the integral of p over the bin <= E[-log p] - d log(2 / 255)``, with equality if p is
    constant in each bin. A net trained on bytes without uniform noise has seen their grid only, which raises its bound.
    """
    return -log_density - coordinates * math.log(BIN)
