"""What a metric asks of a feature net: features and logits of images, and the name that belongs beside the number."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from litdiffusion.data.base import DataModule, to_model_space
from litdiffusion.nets.classifier import Classifier


class FeatureMaps(NamedTuple):
    """``features`` (n, d) and, of a classifier, ``logits`` (n, K), both float32 on the CPU."""

    features: Tensor
    logits: Tensor | None


def to_bytes(images: Tensor) -> Tensor:
    """The 8-bit picture nearest to each image: floats in [-1, 1], clamped, become uint8; uint8 passes unchanged.

    Real images are bytes. Without this a net could tell samples from data by values between the grid's points or
    beyond its ends, which no file and no screen would show. Errors: ValueError for values that are not finite.
    """
    if images.dtype == torch.uint8:
        return images
    if not bool(images.isfinite().all()):
        raise ValueError("the images hold non-finite values: the sampler diverged; look at its trajectory picture")
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Extractor(ABC):
    """A frozen feature net; a subclass writes `maps`.

    ``name`` tells the net, its training data and its weights: numbers under different names cannot be compared.
    Rows are independent, so neither their order nor ``batch_size`` changes results beyond rounding.
    """

    def __init__(self, name: str, net: nn.Module, batch_size: int) -> None:
        self.name, self.batch_size = name, batch_size
        self.net = net.eval().requires_grad_(False)

    @abstractmethod
    def maps(self, images: Tensor) -> FeatureMaps:
        """Of one batch of uint8 images (B, C, H, W) on the net's device."""

    def to(self, device: torch.device) -> "Extractor":
        """Compute on ``device`` from now on; results arrive on the CPU all the same."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> FeatureMaps:
        """Features of ``images`` (n, C, H, W), n >= 1: floats in [-1, 1], rounded by `to_bytes`, or uint8.

        Errors: ValueError for no images, or ones of a shape that the net cannot take.
        """
        if images.ndim != 4 or not len(images):
            raise ValueError(f"images must be (n, C, H, W) with n at least 1, got {tuple(images.shape)}")
        device = next(self.net.parameters()).device
        # A caller in mixed precision must get the numbers that everybody gets.
        with torch.autocast(device.type, enabled=False):
            parts = [self.maps(to_bytes(rows).to(device)) for rows in images.split(self.batch_size)]
        return joined(parts)


class Features(Protocol):
    """What a config names: a kind of features, not yet tied to a data set."""

    def prepare(self, data: DataModule) -> Extractor:
        """The extractor for images like those of ``data``; trains or loads its net (`UserError`)."""
        ...


class ClassifierExtractor(Extractor):
    """The last hidden layer and the logits of a `Classifier` of images of ``shape``.

    ``accuracy`` is the share of the data's test images that it gets right.
    """

    def __init__(self, name: str, net: Classifier, shape: tuple[int, ...], accuracy: float) -> None:
        super().__init__(name, net, batch_size=500)
        self.shape, self.accuracy = shape, accuracy

    def maps(self, images: Tensor) -> FeatureMaps:
        """Features (B, d) and logits (B, K)."""
        if images.shape[1:] != self.shape:
            raise ValueError(f"{self.name} takes images {tuple(self.shape)}, got {tuple(images.shape[1:])}")
        return FeatureMaps(*self.net(to_model_space(images)))


def joined(parts: list[FeatureMaps]) -> FeatureMaps:
    """The rows of all ``parts``, in float32 on the CPU."""
    features = torch.cat([part.features.float().cpu() for part in parts])
    logits = [part.logits.float().cpu() for part in parts if part.logits is not None]
    return FeatureMaps(features, torch.cat(logits) if logits else None)
