"""Noise schedules: which alpha and sigma belong to a time t in [0, 1]."""

from litdiffusion.diffusion.schedules.base import NoiseSchedule
from litdiffusion.diffusion.schedules.chain import Chain
from litdiffusion.diffusion.schedules.continuous import VE, VP, ContinuousSchedule, LinearFlow, LinearSigma, SubVP
from litdiffusion.diffusion.schedules.discrete import DiscreteSchedule
from litdiffusion.diffusion.schedules.ladder import NoiseLadder, ladder, single
from litdiffusion.diffusion.schedules.tables import cosine, linear, scaled_linear, sigmoid

__all__ = [
    "VE",
    "VP",
    "Chain",
    "ContinuousSchedule",
    "DiscreteSchedule",
    "LinearFlow",
    "LinearSigma",
    "NoiseLadder",
    "NoiseSchedule",
    "SubVP",
    "cosine",
    "ladder",
    "linear",
    "scaled_linear",
    "sigmoid",
    "single",
]
