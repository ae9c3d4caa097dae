"""Objectives: the loss of a batch."""

from litdiffusion.objectives.denoising import DenoisingObjective, Losses

__all__ = ["DenoisingObjective", "Losses"]
