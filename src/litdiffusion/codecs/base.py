"""The interface of codecs, which map between data space and model space."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described

Range = tuple[float, float]


class Codec(Described, nn.Module):
    """Maps data to model space, in which the diffusion runs, and back: (B, *shape) <-> (B, *latent_shape(shape))."""

    in_data_space: bool = False
    """Whether model space is data space, or another unit and origin of each coordinate.

    Likelihoods are then those of the data, inpainting keeps single coordinates, and fields are shown in data space.
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

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Where encoded items are known (B, *latent_shape), given where the data are (B, *shape); both are bool.

        A place of a latent is known, in all of its channels, if the patch of pixels that it stands for is known as a
        whole. Everything known stays everything, nothing nothing; in data space (`in_data_space`) it is the mask.

        Raises:
            UserError: latents without rows and columns, or whose sides do not divide those of the images.

        Source: Avrahami, Fried, Lischinski, "Blended Latent Diffusion", 2022, arXiv 2206.02779 (a mask of
        the latent's size; that only whole patches count is our choice).
        """
        if self.in_data_space:
            return mask
        shape, latent = tuple(mask.shape[1:]), self.latent_shape(mask.shape[1:])
        if len(latent) != len(shape) or len(shape) < 2:
            raise UserError(
                f"latents of shape {latent} have no places of their own for parts of items of shape {shape}, so no "
                f"part can be kept while the rest is drawn; take a model with codec=identity"
            )
        known = mask.all(1, keepdim=True)
        for dim, (side, count) in enumerate(zip(shape[1:], latent[1:], strict=True), start=2):
            if side % count:
                raise UserError(
                    f"items of {_by(shape[1:])} do not divide into the {_by(latent[1:])} patches that the codec's "
                    f"latents stand for; take images whose sides are multiples of {_by(latent[1:])}, or codec=identity"
                )
            known = known.unflatten(dim, (count, side // count)).all(dim + 1)
        return known.expand(-1, *latent)

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


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))
