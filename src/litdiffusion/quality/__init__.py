"""The quality of samples: numbers with spread, sample count and noise floor, for vectors and for images."""

from litdiffusion.quality.base import Measured, Quality
from litdiffusion.quality.images import ImageQuality
from litdiffusion.quality.vectors import VectorQuality

__all__ = ["ImageQuality", "Measured", "Quality", "VectorQuality"]
