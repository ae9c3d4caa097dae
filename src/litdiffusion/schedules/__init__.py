"""Noise schedules: which alpha and sigma belong to a time t in [0, 1]."""

from litdiffusion.schedules.base import NoiseSchedule
from litdiffusion.schedules.chain import Chain
from litdiffusion.schedules.continuous import VE, VP, ContinuousSchedule, LinearFlow, LinearSigma, SubVP
from litdiffusion.schedules.discrete import DiscreteSchedule
from litdiffusion.schedules.ladder import NoiseLadder, ladder, single
from litdiffusion.schedules.tables import cosine, linear, scaled_linear, sigmoid

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
