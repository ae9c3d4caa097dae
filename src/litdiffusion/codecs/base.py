"""What every codec offers: the way between data space and model space."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from litdiffusion.parts.described import Described


class Codec(Described, nn.Module):
    """Maps data to the space that the diffusion runs in, and back: (B, *shape) <-> (B, *latent_shape(shape))."""

    in_data_space: bool = False
    """Whether model space is data space: likelihoods are then those of the data, and pixels can be fixed."""

    @abstractmethod
    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one encoded item of this shape."""

    @abstractmethod
    def encode(self, data: Tensor) -> Tensor:
        """Data (B, *shape) in model space."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Samples (B, *latent_shape) in data space."""

    def latent_law(self, law: Any) -> Any:
        """The law of encoded data in closed form, given that of the data; None where it has none."""
        return None
