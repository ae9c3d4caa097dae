"""A multilayer perceptron for vectors, with the noise label and a class embedding as further inputs."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from litdiffusion.errors import UserError
from litdiffusion.nets.conditions import condition_embedding
from litdiffusion.parts.described import Described


class MLP(Described, nn.Module):
    """Fully connected layers with ReLU; the noise label, rescaled to [-1/2, 1/2], is appended to x.

    With a single noise level the noise label is not appended.

    Args:
        shape: shape of one sample; the net flattens x and restores the shape of its output.
        noise_label_range: the smallest and the largest noise label, mapped to -1/2 and +1/2.
        hidden: width of each hidden layer.
        layers: number of hidden layers.
        out_channels: size of the output's first dimension, if it is not shape[0] (learned variance).
        num_classes: K; a learned vector for the class is appended to x. 0: ``class_label`` is ignored.
        conditions: continuous conditions, see `nets.conditions`; none: ``class_label`` holds classes alone.
        class_dim: size of the class vector.

    Shapes: x (B, *shape), noise_label (B,), class_label (B,), (B, C) or None (see `nets.conditions`)
    -> (B, out_channels, *shape[1:]).
    """

    def __init__(
        self,
        shape: Sequence[int],
        noise_label_range: tuple[float, float],
        hidden: int = 128,
        layers: int = 3,
        out_channels: int | None = None,
        num_classes: int = 0,
        class_dim: int = 16,
        conditions: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__()
        if hidden < 1 or layers < 1:
            raise UserError(f"model.hidden and model.layers must be at least 1, got {hidden} and {layers}")
        self.low, self.high = noise_label_range
        size, self.out_shape = math.prod(shape), (out_channels or shape[0], *shape[1:])
        self.timed = self.high > self.low
        widths = [size + self.timed + (class_dim if num_classes or conditions else 0)] + [hidden] * layers
        blocks = [nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in pairwise(widths)]
        self.layers = nn.Sequential(*blocks, nn.Linear(hidden, math.prod(self.out_shape)))
        self.class_embedding = condition_embedding(num_classes, class_dim, conditions)

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        h = x.flatten(1)
        if self.timed:
            time = (noise_label - self.low) / (self.high - self.low) - 0.5
            h = torch.cat([h, time[:, None].to(h.dtype)], dim=1)
        if self.class_embedding is not None:
            h = torch.cat([h, self.class_embedding(class_label, noise_label)], dim=1)
        return self.layers(h).view(-1, *self.out_shape)
