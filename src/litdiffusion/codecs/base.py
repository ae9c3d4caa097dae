"""The interface of codecs, which map between data space and model space."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from litdiffusion.parts.described import Described


class Codec(Described, nn.Module):
    """Maps data to model space, in which the diffusion runs, and back: (B, *shape) <-> (B, *latent_shape(shape))."""

    in_data_space: bool = False
    """Whether model space is data space: likelihoods are then those of the data, and inpainting can fix pixels."""

    @abstractmethod
    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of an encoded item, given the shape of the item."""

    @abstractmethod
    def encode(self, data: Tensor) -> Tensor:
        """Encodes data (B, *shape) into model space."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Decodes latents (B, *latent_shape) into data space."""

    def latent_law(self, law: Any) -> Any:
        """The distribution of encoded data in closed form, given the data's distribution ``law``; None if unknown."""
        return None
