"""Lightning modules: hooks that call the parts; they contain no formulas."""

from litdiffusion.training.module import DiffusionModule

__all__ = ["DiffusionModule"]
