"""The codec of diffusion in data space."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from litdiffusion.codecs.base import Codec, Range


class Identity(Codec):
    """Model space is data space; both directions return their argument."""

    in_data_space = True

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape)

    def encode(self, data: Tensor) -> Tensor:
        return data

    def decode(self, latent: Tensor) -> Tensor:
        return latent

    def latent_law(self, law: Any) -> Any:
        return law

    def latent_range(self, value_range: Range | None, shape: Sequence[int]) -> Range | tuple[Tensor, Tensor] | None:
        return value_range
