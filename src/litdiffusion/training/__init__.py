"""Lightning modules: hooks that call the parts; no formulas live here."""

from litdiffusion.training.module import DiffusionModule

__all__ = ["DiffusionModule"]
