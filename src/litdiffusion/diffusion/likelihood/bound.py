"""The variational bound of a chain on the negative log-likelihood, term by term.

In expectation over the noise, with i = 2..T, t = i/T and s = (i - 1)/T,
``-log p(x_0) <= KL(q(x_T | x_0) || prior) + sum_i KL(q(x_s | x_t, x_0) || p(x_s | x_t)) - log p(x_0 | x_1)``.
``p(x_s | x_t)`` is normal around the posterior's mean at the predicted x_0. Its variance lies between the posterior
variance (variance fraction 0) and the forward variance (variance fraction 1).

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation 5; learned
variances: Nichol, Dhariwal, 2021, arXiv 2102.09672.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.gaussian import diffuse, log_variance_between, posterior, scaled, transition
from litdiffusion.diffusion.levels import Level, Noise, Prediction
from litdiffusion.diffusion.likelihood.bits import are_bytes
from litdiffusion.diffusion.likelihood.normals import kl_divergence, log_density, log_probability_8bit
from litdiffusion.diffusion.schedules import Chain
from litdiffusion.errors import UserError

FIXED = {"posterior": 0.0, "forward": 1.0}
VARIANCES = (*FIXED, "learned")
DECODERS = ("8bit", "gaussian")


class BoundTerms(NamedTuple):
    """The terms of the bound in nats per sample, from one draw of noise at every level.

    ``prior`` (B,) and ``decoder`` (B,) are the bound's first and last term. ``steps`` (B, T - 1) are the KL divergences
    of the steps that start at ``times`` (T - 1,) = 2/T, ..., 1.
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor
    times: Tensor

    @property
    def total(self) -> Tensor:
        """The bound (B,); its expectation over the noise is at least ``-log p(x_0)``."""
        return self.prior + self.steps.sum(1) + self.decoder


class Reverse(NamedTuple):
    """``p(x_s | x_t)`` compared with the posterior.

    ``weight_x_0`` is the weight of x_0's error in the mean, ``log_variance`` the logarithm of the variance,
    ``log_ratio`` the logarithm of the variance divided by the posterior variance.
    """

    weight_x_0: Tensor
    log_variance: Tensor
    log_ratio: Tensor


@torch.no_grad()
def variational_bound(
    denoiser: AnyDenoiser,
    x_0: Tensor,
    variance: str = "forward",
    decoder: str = "8bit",
    class_label: Tensor | None = None,
    noise: Noise = torch.randn_like,
    steps: int | None = None,
) -> BoundTerms:
    """All terms of the bound for x_0 (B, ...), with one network call per level and the memory of one call.

    The last step, to clean data, is the decoder p(x_0 | x_1), normal around the predicted x_0. "8bit" is the
    probability of the bin of ``k / 127.5 - 1``, so the total is a code length. "gaussian" is a density, so the total is
    a negative log density. The posterior variance of the last step is 0. It is replaced by the posterior variance at
    i = 2 for "8bit". For "gaussian" the forward variance sigma_1² replaces it, because smooth data vary by sigma_1
    given x_1.

    For an exact denoiser and smooth data the bound approaches ``-log p(x_0)`` like 1/T with "forward" or well-trained
    "learned" variances. With "posterior" variances it stays above by half of Euler's constant, 0.29 nats per
    coordinate. The steps near clean data cause this gap, because these variances are exact for point masses only.

    Args:
        denoiser: (x_t, level, class_label) -> `Prediction`, with a ``schedule``.
        x_0: data in model space.
        variance: of the reverse steps: "posterior", "forward" or "learned".
        decoder: "8bit" or "gaussian".
        class_label: (B,) or None, passed to the denoiser.
        noise: called once per level, from the noisiest to the cleanest.
        steps: the number of levels of a shorter chain whose bound is returned, also for continuous time; None: all
            levels of the chain.

    Raises:
        UserError: for fewer than two levels, for "8bit" with values that are not bytes, or for "learned" without a
            learned variance.
    """
    _check(variance, decoder, x_0)
    levels = _levels(denoiser, steps)
    floor = posterior(levels[-2], levels[-3]).variance
    decoder_variance = "forward" if (variance, decoder) == ("posterior", "gaussian") else variance
    terms = []
    for now, after in pairwise(levels):
        prediction = denoiser(diffuse(x_0, noise(x_0), now), now, class_label)
        nats, kind = (_decoder_nats, decoder_variance) if after.is_clean else (_step_nats, variance)
        reverse = _reverse(after, now, floor, _variance_fraction(prediction, kind), x_0)
        terms.append(nats(x_0, prediction, reverse, decoder))
    times = torch.stack([level.t for level in levels[-3::-1]])
    prior = prior_divergence(x_0, levels[0], denoiser.schedule.prior_std)
    return BoundTerms(prior, torch.stack(terms[-2::-1], 1), terms[-1], times)


def bound_term(schedule: Chain, x_0: Tensor, prediction: Prediction, level: Level, decoder: str) -> Tensor:
    """The bound's term (B,) of the step that starts at ``level``, in nats per sample, with the learned variance.

    It is meant for training: differentiable in the prediction's x_0 and variance fraction. With i uniform on 1..T, T
    times its mean is an unbiased estimate of the bound without the prior's term. ``level`` has fields (B, 1, ..., 1).
    """
    previous = schedule.previous(level)
    floor = posterior(schedule.at(1 / schedule.steps), schedule.at(2 / schedule.steps)).variance
    reverse = _reverse(previous, level, floor, _variance_fraction(prediction, "learned"), x_0)
    step, last = (nats(x_0, prediction, reverse, decoder) for nats in (_step_nats, _decoder_nats))
    return torch.where(previous.sigma.view(-1) == 0, last, step)


def prior_divergence(x_0: Tensor, level: Level, prior_std: float) -> Tensor:
    """``KL(N(alpha x_0, sigma²) || N(0, prior_std²))`` (B,) at the noisiest level; 0 if no signal is left there."""
    log_prior = torch.as_tensor(prior_std, dtype=torch.float64).log() * 2
    log_ratio = log_prior - 2 * level.sigma.log()
    return kl_divergence(scaled(level.alpha, x_0), log_ratio.to(x_0), log_prior.to(x_0)).flatten(1).sum(1)


def _reverse(after: Level, now: Level, floor: Tensor, variance_fraction: Tensor, like: Tensor) -> Reverse:
    """The reverse transition from ``now`` to ``after``; ``floor`` replaces a posterior variance of 0."""
    weight_x_0, _, lower = posterior(after, now)
    lower = torch.where(after.sigma == 0, floor, lower)
    upper = transition(after, now).variance
    log_variance = log_variance_between(lower, upper, variance_fraction)
    return Reverse(weight_x_0, log_variance.to(like), scaled((upper / lower).log(), variance_fraction).to(like))


def _step_nats(x_0: Tensor, prediction: Prediction, reverse: Reverse, decoder: str) -> Tensor:
    difference = scaled(reverse.weight_x_0, x_0 - prediction.x_0)
    return kl_divergence(difference, reverse.log_ratio, reverse.log_variance).flatten(1).sum(1)


def _decoder_nats(x_0: Tensor, prediction: Prediction, reverse: Reverse, decoder: str) -> Tensor:
    if decoder == "8bit":
        log_p = log_probability_8bit(x_0, prediction.x_0, reverse.log_variance)
    else:
        log_p = log_density(x_0 - prediction.x_0, reverse.log_variance)
    return -log_p.flatten(1).sum(1)


def _variance_fraction(prediction: Prediction, variance: str) -> Tensor:
    if variance in FIXED:
        return torch.tensor(FIXED[variance], dtype=torch.float64)
    if prediction.variance_fraction is None:
        raise UserError(
            "variance=learned needs a denoiser with a learned variance, this one has none; take variance=forward or "
            "posterior, or train with objective=hybrid"
        )
    return prediction.variance_fraction


def _levels(denoiser: AnyDenoiser, steps: int | None) -> list[Level]:
    if denoiser.schedule.steps == 1:
        raise UserError("a single noise level has no steps from noise to data, and so no bound; train another recipe")
    levels = denoiser.schedule.grid(steps)
    if len(levels) < 3:
        raise UserError(f"the bound needs at least 2 steps, got {len(levels) - 1}; take more")
    return levels


def _check(variance: str, decoder: str, x_0: Tensor) -> None:
    for name, value, known in (("variance", variance, VARIANCES), ("decoder", decoder, DECODERS)):
        if value not in known:
            raise UserError(f"{name} of the bound must be one of {', '.join(known)}, got {value!r}")
    if decoder == "8bit" and not are_bytes(x_0):
        raise UserError(
            f"decoder=8bit codes the 256 values k / 127.5 - 1 from -1 to 1, got other values between "
            f"{x_0.min().item():.4g} and {x_0.max().item():.4g}; take decoder=gaussian"
        )
