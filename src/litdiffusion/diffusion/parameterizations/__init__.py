"""What the network's output means: rows of one linear system."""

from litdiffusion.diffusion.parameterizations.base import Parameterization
from litdiffusion.diffusion.parameterizations.rows import EDM, X0, Epsilon, Flow, PosteriorMean, Score, V

__all__ = ["EDM", "X0", "Epsilon", "Flow", "Parameterization", "PosteriorMean", "Score", "V"]
