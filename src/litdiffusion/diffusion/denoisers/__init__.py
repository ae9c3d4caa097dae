"""Denoisers: (x_t, level) -> Prediction(x_0, eps), learned or in closed form, and wrappers around them."""

from litdiffusion.diffusion.denoisers.analytic import (
    ExactOutput,
    GaussianMixtureDenoiser,
    empirical_denoiser,
    exact_denoiser,
)
from litdiffusion.diffusion.denoisers.autocast import in_precision
from litdiffusion.diffusion.denoisers.autoguidance import Autoguidance
from litdiffusion.diffusion.denoisers.classifier_free import ClassifierFreeGuidance
from litdiffusion.diffusion.denoisers.classifier_guidance import ClassifierGuidance
from litdiffusion.diffusion.denoisers.clipped import ClippedDenoiser
from litdiffusion.diffusion.denoisers.fitting import FittingDenoiser
from litdiffusion.diffusion.denoisers.guidance import Guidance
from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.learned import Denoiser
from litdiffusion.diffusion.denoisers.mixed import MixedClasses
from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper, with_x_0

__all__ = [
    "AnyDenoiser",
    "Autoguidance",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "ClippedDenoiser",
    "Denoiser",
    "DenoiserWrapper",
    "ExactOutput",
    "FittingDenoiser",
    "GaussianMixtureDenoiser",
    "Guidance",
    "MixedClasses",
    "empirical_denoiser",
    "exact_denoiser",
    "in_precision",
    "with_x_0",
]
