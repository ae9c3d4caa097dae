"""Codecs: between data space and the space that the diffusion runs in."""

from litdiffusion.codecs.base import Codec
from litdiffusion.codecs.identity import Identity
from litdiffusion.codecs.standardise import Standardise

__all__ = ["Codec", "Identity", "Standardise"]
