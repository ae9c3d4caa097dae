"""From nats to bits per dimension, and 8-bit values as the bins of a density."""

import math

import torch
from torch import Tensor

from litdiffusion.diffusion.likelihood.normals import HALF_BIN

BIN = 2 * HALF_BIN
OFF_GRID = 0.05
"""Of a step between two bytes: more than float32 rounds."""


def are_bytes(x_0: Tensor) -> bool:
    """Whether all values are of the 256 that stand for bytes, ``k / 127.5 - 1``."""
    place = (x_0 + 1) * 127.5
    return bool(((place - place.round().clamp(0, 255)).abs() <= OFF_GRID).all())


def bits_per_dimension(nats: Tensor, coordinates: int) -> Tensor:
    """``nats / (coordinates * ln 2)``, shaped like ``nats``: the code length of an 8-bit item per number.

    8 is what storing the bytes costs. ``nats`` is a negative log probability: the total of `variational_bound` with
    ``decoder="8bit"``, which needs no correction, or `byte_nats` of a density.
    """
    return nats / (coordinates * math.log(2))


def dequantised(x_0: Tensor, seed: int = 0) -> Tensor:
    """8-bit values ``k / 127.5 - 1`` (B, ...) spread uniformly over their bins of width 2/255; same shape.

    Source: Theis, van den Oord, Bethge, "A note on the evaluation of generative models", 2015, arXiv 1511.01844,
    section 3.1 (uniform noise, there on the integers).
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(x_0.shape, generator=generator, dtype=x_0.dtype).to(x_0.device)
    return x_0 + BIN * (uniform - 0.5)


def byte_nats(log_density: Tensor, coordinates: int) -> Tensor:
    """``-log p - coordinates * log(2 / 255)``, shaped like ``log_density`` at `dequantised` values: an upper bound on
    the nats of the bytes.

    By Jensen's inequality ``-log P(bytes) = -log of the integral of p over the bin <= E[-log p] - d log(2 / 255)``, so
    the mean over draws of the uniform noise bounds the code length; equal where p is flat over each bin. A net that was
    trained on the bare bytes knows only their grid and pays for that here.
    """
    return -log_density - coordinates * math.log(BIN)
