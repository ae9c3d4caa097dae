"""Frozen feature nets: features and logits of images, and the name of the net for every table."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from litdiffusion.data.base import DataModule, bytes_to_floats
from litdiffusion.nets.classifier import Classifier


class FeatureMaps(NamedTuple):
    """``features`` (n, d) and, for a classifier, ``logits`` (n, K); both float32 on the CPU."""

    features: Tensor
    logits: Tensor | None


def to_bytes(images: Tensor) -> Tensor:
    """The nearest 8-bit image: floats in [-1, 1] are clamped and become uint8, and uint8 stays unchanged.

    Real images are bytes. Unrounded samples would differ from them by values between two bytes or out of range, which
    no file and no screen shows.

    Raises:
        ValueError: for non-finite values.
    """
    if images.dtype == torch.uint8:
        return images
    if not bool(images.isfinite().all()):
        raise ValueError("the images hold non-finite values: the sampler diverged; look at its trajectory picture")
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Extractor(ABC):
    """A frozen feature net; a subclass implements `maps`.

    ``name`` identifies the net, its training data and its weights. Numbers of different names are not comparable. Rows
    are independent: their order and ``batch_size`` change results by rounding only.
    """

    def __init__(self, name: str, net: nn.Module, batch_size: int) -> None:
        self.name, self.batch_size = name, batch_size
        self.net = net.eval().requires_grad_(False)

    @abstractmethod
    def maps(self, images: Tensor) -> FeatureMaps:
        """Features and logits of one batch of uint8 images (B, C, H, W) on the net's device."""

    def to(self, device: torch.device) -> "Extractor":
        """Moves the net to ``device``; results stay on the CPU."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> FeatureMaps:
        """Features of ``images`` (n, C, H, W), n >= 1: uint8, or floats in [-1, 1] that `to_bytes` rounds.

        Raises:
            ValueError: for an empty batch, or shapes that the net cannot take.
        """
        if images.ndim != 4 or not len(images):
            raise ValueError(f"images must be (n, C, H, W) with n at least 1, got {tuple(images.shape)}")
        device = next(self.net.parameters()).device
        # Mixed precision of the caller must not change the numbers.
        with torch.autocast(device.type, enabled=False):
            parts = [self.maps(to_bytes(rows).to(device)) for rows in images.split(self.batch_size)]
        return joined(parts)


@runtime_checkable
class Features(Protocol):
    """A kind of features without a data set, as a config names it."""

    def prepare(self, data: DataModule) -> Extractor:
        """The extractor for images of ``data``, trained or loaded; raises a `UserError` for unsuitable data."""
        ...


class ClassifierExtractor(Extractor):
    """The last hidden layer and the logits of a `Classifier` of images of ``shape``.

    ``accuracy`` is its share of correctly classified test images.
    """

    def __init__(self, name: str, net: Classifier, shape: tuple[int, ...], accuracy: float) -> None:
        super().__init__(name, net, batch_size=500)
        self.shape, self.accuracy = shape, accuracy

    def maps(self, images: Tensor) -> FeatureMaps:
        """Features (B, d) and logits (B, K)."""
        if images.shape[1:] != self.shape:
            raise ValueError(f"{self.name} takes images {tuple(self.shape)}, got {tuple(images.shape[1:])}")
        return FeatureMaps(*self.net(bytes_to_floats(images)))

    def differentiable(self, images: Tensor) -> Tensor:
        """Features (B, d) of images in [-1, 1] on their own device, through which gradients flow to the images."""
        return self.net.to(images.device)(images.float())[0]


def joined(parts: list[FeatureMaps]) -> FeatureMaps:
    """The rows of all ``parts``, in float32 on the CPU."""
    features = torch.cat([part.features.float().cpu() for part in parts])
    logits = [part.logits.float().cpu() for part in parts if part.logits is not None]
    return FeatureMaps(features, torch.cat(logits) if logits else None)
