"""Pure functions of Gaussian diffusion: to a noise level, and between two of them.

All follow from ``x_t = alpha_t * x_0 + sigma_t * eps``. With ``alpha_ts = alpha_t / alpha_s`` for ``s < t``:

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
    """``x_t = scale * x_s + sqrt(variance) * z`` with z ~ N(0, I), going towards noise."""

    scale: Tensor
    variance: Tensor


class Posterior(NamedTuple):
    """``x_s = weight_x_0 * x_0 + weight_x_t * x_t + sqrt(variance) * z``, going towards data."""

    weight_x_0: Tensor
    weight_x_t: Tensor
    variance: Tensor


def mix(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """``a * x + b * y``; the float64 coefficients take the data's dtype and device only here.

    A 0-dimensional coefficient stays where it is: it acts as a plain number and promotes nothing.
    """
    return _beside(a, x) * x + _beside(b, y) * y


def scaled(a: Tensor, x: Tensor) -> Tensor:
    """``a * x``, cast as in `mix`."""
    return _beside(a, x) * x


def _beside(coefficient: Tensor, x: Tensor) -> Tensor:
    return coefficient if coefficient.ndim == 0 else coefficient.to(x)


def diffuse(x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """``x_t = alpha * x_0 + sigma * eps``; at the clean level this is x_0 itself. Shapes: x_0, eps, x_t (B, ...)."""
    return mix(level.alpha, x_0, level.sigma, eps)


def score(eps: Tensor, level: Level) -> Tensor:
    """Score of the noised density from the expected noise, ``-E[eps | x_t] / sigma`` (Tweedie); needs sigma > 0."""
    return scaled(-1 / level.sigma, eps)


def transition(s: Level, t: Level) -> Transition:
    """The forward transition from ``s`` to the noisier ``t``; its variance is sigma_t² where s is clean data."""
    scale = t.alpha / s.alpha
    return Transition(scale, t.sigma**2 - (scale * s.sigma) ** 2)


def posterior(s: Level, t: Level) -> Posterior:
    """The posterior of x_s given x_t and x_0, ``s < t``; into clean data it is x_0 exactly, with variance 0."""
    scale, forward = transition(s, t)
    return Posterior(
        weight_x_0=s.alpha * forward / t.sigma**2,
        weight_x_t=scale * (s.sigma / t.sigma) ** 2,
        variance=forward * (s.sigma / t.sigma) ** 2,
    )


def log_variance_between(lower: Tensor, upper: Tensor, variance_fraction: Tensor) -> Tensor:
    """``(1 - spread) * log(lower) + spread * log(upper)``: a reverse step's, from the posterior's to the forward one.

    Shaped like ``variance_fraction``, which may leave [0, 1]: the interval is not enforced. lower > 0.

    Source: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, arXiv 2102.09672, equation 15.
    """
    return mix(lower.log(), 1 - variance_fraction, upper.log(), variance_fraction)
