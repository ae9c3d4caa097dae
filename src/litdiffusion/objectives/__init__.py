"""Objectives: the loss of a batch."""

from litdiffusion.objectives.denoising import DenoisingObjective, Losses
from litdiffusion.objectives.hybrid import HybridObjective

__all__ = ["DenoisingObjective", "HybridObjective", "Losses"]
