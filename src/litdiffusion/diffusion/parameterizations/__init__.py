"""Parameterizations: what the net's output means, as a row (a, b) of one linear system."""

from litdiffusion.diffusion.parameterizations.base import Parameterization
from litdiffusion.diffusion.parameterizations.rows import EDM, X0, Epsilon, Flow, PosteriorMean, Score, V

__all__ = ["EDM", "X0", "Epsilon", "Flow", "Parameterization", "PosteriorMean", "Score", "V"]
