"""Denoisers: (x_t, level) -> Prediction(x_0, eps), learned or in closed form, and wrappers around them."""

from litdiffusion.diffusion.denoisers.analytic import (
    ExactOutput,
    GaussianMixtureDenoiser,
    empirical_denoiser,
    exact_denoiser,
)
from litdiffusion.diffusion.denoisers.clipped import ClippedDenoiser
from litdiffusion.diffusion.denoisers.guided import GuidedDenoiser
from litdiffusion.diffusion.denoisers.learned import Denoiser
from litdiffusion.diffusion.denoisers.mixed import MixedClasses
from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper, with_x_0

__all__ = [
    "ClippedDenoiser",
    "Denoiser",
    "DenoiserWrapper",
    "ExactOutput",
    "GaussianMixtureDenoiser",
    "GuidedDenoiser",
    "MixedClasses",
    "empirical_denoiser",
    "exact_denoiser",
    "with_x_0",
]
