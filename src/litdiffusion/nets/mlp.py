"""A multilayer perceptron for vectors, told of the noise by one more input."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from litdiffusion.errors import UserError


class MLP(nn.Module):
    """Fully connected layers with ReLU; the label, rescaled to [-1/2, 1/2], is appended to x.

    Args:
        shape: of one sample; anything but a vector is flattened and restored.
        label_range: the smallest and largest label, mapped to -1/2 and +1/2.
        hidden: width of each hidden layer.
        layers: number of hidden layers.

    Shapes: x (B, *shape), label (B,) -> (B, *shape). ``cond`` is not used.
    """

    def __init__(self, shape: Sequence[int], label_range: tuple[float, float], hidden: int = 128, layers: int = 3):
        super().__init__()
        if hidden < 1 or layers < 1:
            raise UserError(f"model.hidden and model.layers must be at least 1, got {hidden} and {layers}")
        self.low, self.high = label_range
        size = math.prod(shape)
        widths = [size + 1] + [hidden] * layers
        blocks = [nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in pairwise(widths)]
        self.layers = nn.Sequential(*blocks, nn.Linear(hidden, size))

    def forward(self, x: Tensor, label: Tensor, cond: Tensor | None = None) -> Tensor:
        time = (label - self.low) / (self.high - self.low) - 0.5
        return self.layers(torch.cat([x.flatten(1), time[:, None]], dim=1)).view_as(x)
