"""Denoisers: (x_t, level) -> Prediction(x_0, eps), learned or in closed form, and wrappers around them."""

from litdiffusion.denoisers.analytic import GaussianMixtureDenoiser, OptimalOutput, empirical_denoiser
from litdiffusion.denoisers.clipped import ClippedDenoiser
from litdiffusion.denoisers.guided import GuidedDenoiser
from litdiffusion.denoisers.learned import Denoiser
from litdiffusion.denoisers.wrapper import DenoiserWrapper, with_x_0

__all__ = [
    "ClippedDenoiser",
    "Denoiser",
    "DenoiserWrapper",
    "GaussianMixtureDenoiser",
    "GuidedDenoiser",
    "OptimalOutput",
    "empirical_denoiser",
    "with_x_0",
]
