"""What the network's output means: rows of one linear system."""

from litdiffusion.parameterizations.base import Parameterization
from litdiffusion.parameterizations.rows import X0, Epsilon, PosteriorMean, V

__all__ = ["X0", "Epsilon", "Parameterization", "PosteriorMean", "V"]
