"""Noise schedules: which alpha and sigma belong to a time t in [0, 1]."""

from litdiffusion.diffusion.schedules.base import NoiseSchedule
from litdiffusion.diffusion.schedules.chain import Chain
from litdiffusion.diffusion.schedules.continuous import VE, VP, ContinuousSchedule, LinearFlow, LinearSigma, SubVP
from litdiffusion.diffusion.schedules.discrete import DiscreteSchedule
from litdiffusion.diffusion.schedules.ladder import GeometricLadder, NoiseLadder, SingleLevel
from litdiffusion.diffusion.schedules.tables import CosineChain, LinearChain, ScaledLinearChain, SigmoidChain

__all__ = [
    "VE",
    "VP",
    "Chain",
    "ContinuousSchedule",
    "CosineChain",
    "DiscreteSchedule",
    "GeometricLadder",
    "LinearChain",
    "LinearFlow",
    "LinearSigma",
    "NoiseLadder",
    "NoiseSchedule",
    "ScaledLinearChain",
    "SigmoidChain",
    "SingleLevel",
    "SubVP",
]
