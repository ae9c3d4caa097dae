"""The networks of this project."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """A perceptron on points, with the noise level as a further input.

    Args:
        shape: of one point, (D,).
        noise_label_range: the smallest and the largest noise label, mapped to -1/2 and +1/2.
        hidden: width of the three hidden layers.
    """

    def __init__(self, shape: Sequence[int], noise_label_range: Sequence[float], hidden: int = 128):
        super().__init__()
        self.low, self.high = noise_label_range
        self.first = nn.Linear(shape[0] + 1, hidden)
        self.middle = nn.ModuleList([nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)])
        self.last = nn.Linear(hidden, shape[0])

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        """Predicts from points x (B, D) at noise labels (B,) what the parameterization asks for, (B, D)."""
        level = (noise_label - self.low) / (self.high - self.low) - 0.5
        h = self.first(torch.cat([x, level[:, None].to(x)], dim=1)).relu()
        for layer in self.middle:
            h = layer(h).relu()
        return self.last(h)
