"""Lightning modules: hooks that call the parts; they contain no formulas."""

from litdiffusion.training.autoencoder import AutoencoderModule
from litdiffusion.training.base import TrainingModule
from litdiffusion.training.module import DiffusionModule

__all__ = ["AutoencoderModule", "DiffusionModule", "TrainingModule"]
