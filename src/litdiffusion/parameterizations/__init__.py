"""What the network's output means: rows of one linear system."""

from litdiffusion.parameterizations.base import Parameterization
from litdiffusion.parameterizations.rows import EDM, X0, Epsilon, Flow, PosteriorMean, Score, V

__all__ = ["EDM", "X0", "Epsilon", "Flow", "Parameterization", "PosteriorMean", "Score", "V"]
