"""Codecs: between data space and the space that the diffusion runs in."""

from litdiffusion.codecs.base import Codec
from litdiffusion.codecs.identity import Identity

__all__ = ["Codec", "Identity"]
