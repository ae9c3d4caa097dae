"""Denoisers: (x_t, level) -> Prediction(x_0, eps), learned or in closed form, and wrappers around them."""

from litdiffusion.denoisers.analytic import GaussianMixtureDenoiser, empirical_denoiser
from litdiffusion.denoisers.clipped import ClippedDenoiser
from litdiffusion.denoisers.learned import Denoiser

__all__ = ["ClippedDenoiser", "Denoiser", "GaussianMixtureDenoiser", "empirical_denoiser"]
