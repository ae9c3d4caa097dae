"""Objectives: the loss of a batch."""

from litdiffusion.diffusion.objectives.denoising import DenoisingObjective, Losses
from litdiffusion.diffusion.objectives.hybrid import HybridObjective
from litdiffusion.diffusion.objectives.stable_target import StableTargetObjective

__all__ = ["DenoisingObjective", "HybridObjective", "Losses", "StableTargetObjective"]
