"""Samplers: walks down the noise levels, from pure noise to data."""

from litdiffusion.samplers.ancestral import Ancestral
from litdiffusion.samplers.base import Sampler, State
from litdiffusion.samplers.ddim import DDIM

__all__ = ["DDIM", "Ancestral", "Sampler", "State"]
