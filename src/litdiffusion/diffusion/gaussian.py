"""Gaussian diffusion as pure functions: from data to a noise level, and between two noise levels.

All formulas follow from ``x_t = alpha_t * x_0 + sigma_t * eps``. With ``alpha_ts = alpha_t / alpha_s`` for ``s < t``:

- forward transition ``q(x_t | x_s) = N(alpha_ts * x_s, forward)``, ``forward = sigma_t² - alpha_ts² * sigma_s²``;
- posterior ``q(x_s | x_t, x_0) = N(mean, variance)``, ``variance = forward * sigma_s² / sigma_t²`` and
  ``mean = alpha_s * forward / sigma_t² * x_0 + alpha_ts * sigma_s² / sigma_t² * x_t``.

For a variance-preserving chain ``forward`` is beta_t, and the posterior is equations 6 and 7 of Ho, Jain, Abbeel,
"Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239. The general form is in Kingma, Salimans, Poole, Ho,
"Variational Diffusion Models", 2021, arXiv 2107.00630, appendix A.
"""

from typing import NamedTuple

from torch import Tensor

from litdiffusion.diffusion.levels import Level


class Transition(NamedTuple):
    """``x_t = scale * x_s + sqrt(variance) * z`` with z ~ N(0, I): a step towards noise."""

    scale: Tensor
    variance: Tensor


class Posterior(NamedTuple):
    """``x_s = weight_x_0 * x_0 + weight_x_t * x_t + sqrt(variance) * z``: a step towards data."""

    weight_x_0: Tensor
    weight_x_t: Tensor
    variance: Tensor


def mix(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """``a * x + b * y``, with the float64 coefficients cast to the dtype and device of the data."""
    return _cast_like(a, x) * x + _cast_like(b, y) * y


def scaled(a: Tensor, x: Tensor) -> Tensor:
    """``a * x``, with ``a`` cast as in `mix`."""
    return _cast_like(a, x) * x


def _cast_like(coefficient: Tensor, x: Tensor) -> Tensor:
    # A 0-dimensional tensor needs no cast: torch treats it as a number, which changes neither dtype nor device.
    return coefficient if coefficient.ndim == 0 else coefficient.to(x)


def diffuse(x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """``x_t = alpha * x_0 + sigma * eps``; at the clean level this is x_0 itself. Shapes: x_0, eps, x_t (B, ...)."""
    return mix(level.alpha, x_0, level.sigma, eps)


def score(eps: Tensor, level: Level) -> Tensor:
    """The score of the noised density from the expected noise: ``-E[eps | x_t] / sigma`` (Tweedie); needs sigma > 0."""
    return scaled(-1 / level.sigma, eps)


def transition(s: Level, t: Level) -> Transition:
    """The forward transition from ``s`` to the noisier ``t``; its variance is sigma_t² if s is clean data."""
    scale = t.alpha / s.alpha
    return Transition(scale, t.sigma**2 - (scale * s.sigma) ** 2)


def posterior(s: Level, t: Level) -> Posterior:
    """The posterior of x_s given x_t and x_0, ``s < t``; if s is clean data it is x_0 with variance 0."""
    scale, forward = transition(s, t)
    return Posterior(
        weight_x_0=s.alpha * forward / t.sigma**2,
        weight_x_t=scale * (s.sigma / t.sigma) ** 2,
        variance=forward * (s.sigma / t.sigma) ** 2,
    )


def log_variance_between(lower: Tensor, upper: Tensor, variance_fraction: Tensor) -> Tensor:
    """``(1 - f) * log(lower) + f * log(upper)``, f = ``variance_fraction``: the log variance of a reverse step.

    ``lower`` > 0 is the posterior variance, ``upper`` the forward variance. The result is shaped like
    ``variance_fraction``, which is not restricted to [0, 1].

    Source: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, arXiv 2102.09672, equation 15.
    """
    return mix(lower.log(), 1 - variance_fraction, upper.log(), variance_fraction)
