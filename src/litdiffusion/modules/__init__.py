"""Lightning modules: hooks that call the parts; no formulas live here."""

from litdiffusion.modules.diffusion import DiffusionModule

__all__ = ["DiffusionModule"]
