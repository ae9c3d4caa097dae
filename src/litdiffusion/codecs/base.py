"""The interface of codecs, which map between data space and model space."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from litdiffusion.parts.described import Described

Range = tuple[float, float]


class Codec(Described, nn.Module):
    """Maps data to model space, in which the diffusion runs, and back: (B, *shape) <-> (B, *latent_shape(shape))."""

    in_data_space: bool = False
    """Whether model space is data space, or another unit and origin of each coordinate.

    Likelihoods are then those of the data, inpainting can fix coordinates, and fields are shown in data space.
    """

    cache: str | Path | None = None
    """Folder in which a run keeps the latents of its items, which are then encoded once; None: at every step."""

    @abstractmethod
    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of an encoded item, given the shape of the item."""

    @abstractmethod
    def encode(self, data: Tensor) -> Tensor:
        """Encodes data (B, *shape) into model space."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Decodes latents (B, *latent_shape) into data space."""

    @property
    def constants(self) -> dict[str, Any]:
        """What `measured_on` measured, as values of ``derived``; with the weights it decides `encode`."""
        return {}

    def measured_on(self, items: Tensor) -> dict[str, Any]:
        """Measures the codec's constants on training items, if it has any; returns them."""
        return self.constants

    def latent_law(self, law: Any) -> Any:
        """The distribution of encoded data in closed form, given the data's distribution ``law``; None if unknown."""
        return None

    def latent_range(self, value_range: Range | None, shape: Sequence[int]) -> Range | tuple[Tensor, Tensor] | None:
        """The range of encoded items, given the data's range and shape; tensors are (1, *shape). None: unknown."""
        return None

    def summary(self, shape: Sequence[int]) -> str:
        """A line for the start of a run on items of this shape; empty if there is nothing to say."""
        return ""

    def units(self, item: Tensor) -> Tensor:
        """The derivative of each coordinate of `decode`, shaped like an encoded item (B, *shape), if `in_data_space`.

        A velocity in data space is ``units`` times that in model space, a score is divided by it, and
        ``-log p(data) = -log p(latent) + sum log units``.
        """
        return item.new_ones(item.shape)

    def log_units(self, item: Tensor) -> float:
        """``sum log units`` of one item: what a density in model space lacks of one in data space, in nats."""
        return self.units(item[:1]).double().log().sum().item()
