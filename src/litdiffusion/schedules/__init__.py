"""Noise schedules: which alpha and sigma belong to a time t in [0, 1]."""

from litdiffusion.schedules.base import NoiseSchedule
from litdiffusion.schedules.discrete import DiscreteSchedule
from litdiffusion.schedules.tables import cosine, linear, scaled_linear, sigmoid

__all__ = ["DiscreteSchedule", "NoiseSchedule", "cosine", "linear", "scaled_linear", "sigmoid"]
