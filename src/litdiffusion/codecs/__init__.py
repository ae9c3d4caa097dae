"""Codecs: between data space and the space that the diffusion runs in."""

from litdiffusion.codecs.autoencoded import Autoencoded
from litdiffusion.codecs.base import Codec
from litdiffusion.codecs.identity import Identity
from litdiffusion.codecs.reconstruction import ReconstructionLosses, ReconstructionObjective
from litdiffusion.codecs.standardise import Standardise

__all__ = ["Autoencoded", "Codec", "Identity", "ReconstructionLosses", "ReconstructionObjective", "Standardise"]
