"""The quality of samples of a data set: estimates with their noise floor, for vectors and for images."""

from litdiffusion.measure.quality.base import Measured, Quality, logged
from litdiffusion.measure.quality.images import ImageQuality
from litdiffusion.measure.quality.vectors import VectorQuality

__all__ = ["ImageQuality", "Measured", "Quality", "VectorQuality", "logged"]
