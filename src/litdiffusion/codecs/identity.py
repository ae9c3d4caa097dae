"""Diffusion in data space."""

from collections.abc import Sequence

from torch import Tensor, nn

from litdiffusion.parts.described import Described


class Identity(Described, nn.Module):
    """Model space is data space; both directions return their argument."""

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one encoded sample of this shape."""
        return tuple(shape)

    def encode(self, data: Tensor) -> Tensor:
        return data

    def decode(self, latent: Tensor) -> Tensor:
        return latent
