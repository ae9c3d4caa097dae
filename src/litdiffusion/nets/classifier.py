"""A small convolutional classifier of small images, whose last hidden layer gives features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litdiffusion.errors import UserError

_SMALLEST = 4


class Classifier(nn.Module):
    """Three convolution stages, two of which halve the sides; average pooling to 2 x 2 cells; two linear layers.

    The stages have ``width``, ``2 * width`` and ``4 * width`` channels. Then
    ``features = relu(norm(linear(16 * width)))`` and ``logits = linear(features)``. 28x28 grey images, 8x8 digits and
    32x32 colour images all end on 2 x 2 cells, so one net size serves all of them. The cells keep the position of a
    stroke, which a single mean would lose. There is no dropout: in evaluation mode an output depends on its own image
    only, in training mode also on the batch norm's statistics.

    Args:
        shape: (C, H, W) of one image, each side at least 4.
        num_classes: K, at least 2.
        width: channels of the first stage.
        dim: d, the number of features.

    Shapes: x (B, *shape) in [-1, 1] -> features (B, d), logits (B, K).

    Raises:
        UserError: for other shapes and sizes.

    Source: Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift", 2015, arXiv 1502.03167.
    """

    def __init__(self, shape: Sequence[int], num_classes: int, width: int = 16, dim: int = 64):
        super().__init__()
        _check(shape, num_classes, width, dim)
        self.cells = nn.Sequential(
            *_stage(shape[0], width, nn.MaxPool2d(2)),
            *_stage(width, 2 * width, nn.MaxPool2d(2)),
            *_stage(2 * width, 4 * width, nn.Identity()),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.features = nn.Sequential(nn.Linear(16 * width, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU())
        self.logits = nn.Linear(dim, num_classes)
        # Because this layout takes half the time of the default one on a CPU.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(self.cells(x))
        return features, self.logits(features)


def _stage(inputs: int, outputs: int, pool: nn.Module) -> tuple[nn.Module, ...]:
    # Pooling comes before the norm, because the norm then has a quarter of the values.
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), pool, nn.BatchNorm2d(outputs), nn.ReLU()


def _check(shape: Sequence[int], num_classes: int, width: int, dim: int) -> None:
    if len(shape) != 3 or min(shape[1:]) < _SMALLEST:
        raise UserError(
            f"a classifier needs images (channels, height, width) with sides of at least {_SMALLEST}, got "
            f"{tuple(shape)}; vectors have metrics of their own: set metrics=none"
        )
    if num_classes < 2 or width < 1 or dim < 1:
        raise UserError(
            f"a classifier needs at least 2 classes, width 1 and dim 1, got "
            f"num_classes={num_classes}, width={width}, dim={dim}"
        )
