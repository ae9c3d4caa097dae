"""The variational bound of a chain on the negative log-likelihood, term by term.

In the mean over the noise, with i = 2..T, t = i/T and s = (i - 1)/T,
``-log p(x_0) <= KL(q(x_T | x_0) || prior) + sum_i KL(q(x_s | x_t, x_0) || p(x_s | x_t)) - log p(x_0 | x_1)``.
``p(x_s | x_t)`` is normal around the posterior's mean at the predicted x_0; its variance lies between the posterior's
(fraction 0) and the forward one (fraction 1).

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation 5; learned
variances: Nichol, Dhariwal, 2021, arXiv 2102.09672.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

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
    """Nats per sample, from one draw of noise at every level.

    ``prior`` (B,) and ``decoder`` (B,) are the bound's first and last term, ``steps`` (B, T - 1) the divergences of the
    steps down from ``times`` (T - 1,) = 2/T, ..., 1.
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
    """``p(x_s | x_t)`` beside the posterior: the weight of x_0's error in the mean, the logarithm of the variance, and
    that of its ratio to the posterior's.
    """

    weight_x_0: Tensor
    log_variance: Tensor
    log_ratio: Tensor


@torch.no_grad()
def variational_bound(
    denoiser: nn.Module,
    x_0: Tensor,
    variance: str = "forward",
    decoder: str = "8bit",
    class_label: Tensor | None = None,
    noise: Noise = torch.randn_like,
    steps: int | None = None,
) -> BoundTerms:
    """Every term of the bound for x_0 (B, ...): one network call per level, memory of one.

    The last step, into clean data, is the decoder p(x_0 | x_1), normal around the predicted x_0. "8bit" codes values
    ``k / 127.5 - 1`` by the mass of their bins: the total is then a code length. "gaussian" is a density, and the total
    a negative log density. The posterior variance of that step is 0; in its place stands the second step's for bytes,
    and for densities the forward one, sigma_1²: given x_1 smooth data still vary by sigma_1.

    As the steps become many, the bound of an exact denoiser with "forward" or well "learned" variances closes in on
    ``-log p(x_0)`` of smooth data as 1/T. With "posterior" ones it stays above by half of Euler's constant, 0.29 nats
    per coordinate, which the first steps cost: those variances are right for points alone.

    Args:
        denoiser: (x_t, level, class_label) -> `Prediction`, with a ``schedule``.
        x_0: data in model space.
        variance: of the reverse steps: "posterior", "forward" or "learned".
        decoder: "8bit" or "gaussian".
        class_label: what the denoiser is told.
        noise: drawn anew at every level, from the noisiest down.
        steps: the bound of the shorter chain that visits so many levels, of a process in continuous time too; None
            takes all of a chain.

    Raises:
        UserError: fewer than two levels, values that are no bytes for "8bit", or "learned" where nothing was.
    """
    _check(variance, decoder, x_0)
    levels = _levels(denoiser, steps)
    floor = posterior(levels[-2], levels[-3]).variance
    decoding = "forward" if (variance, decoder) == ("posterior", "gaussian") else variance
    terms = []
    for now, after in pairwise(levels):
        prediction = denoiser(diffuse(x_0, noise(x_0), now), now, class_label)
        nats, kind = (_decoder_nats, decoding) if after.is_clean else (_step_nats, variance)
        reverse = _reverse(after, now, floor, _variance_fraction(prediction, kind), x_0)
        terms.append(nats(x_0, prediction, reverse, decoder))
    times = torch.stack([level.t for level in levels[-3::-1]])
    prior = prior_divergence(x_0, levels[0], denoiser.schedule.prior_std)
    return BoundTerms(prior, torch.stack(terms[-2::-1], 1), terms[-1], times)


def bound_term(schedule: Chain, x_0: Tensor, prediction: Prediction, level: Level, decoder: str) -> Tensor:
    """The term (B,) of the step down from ``level``, in nats per sample, with the variance that the prediction holds.

    With i uniform on 1..T, T times its mean is an unbiased estimate of the bound less the prior's term: the form to
    train on, differentiable in the prediction's x_0 and variance fraction. Levels (B, 1, ..., 1) of the chain.
    """
    previous = schedule.previous(level)
    floor = posterior(schedule.at(1 / schedule.steps), schedule.at(2 / schedule.steps)).variance
    reverse = _reverse(previous, level, floor, _variance_fraction(prediction, "learned"), x_0)
    step, last = (nats(x_0, prediction, reverse, decoder) for nats in (_step_nats, _decoder_nats))
    return torch.where(previous.sigma.view(-1) == 0, last, step)


def prior_divergence(x_0: Tensor, level: Level, prior_std: float) -> Tensor:
    """``KL(N(alpha x_0, sigma²) || N(0, prior_std²))`` (B,) at the noisiest level: what is left of the data there."""
    log_prior = torch.as_tensor(prior_std, dtype=torch.float64).log() * 2
    log_ratio = log_prior - 2 * level.sigma.log()
    return kl_divergence(scaled(level.alpha, x_0), log_ratio.to(x_0), log_prior.to(x_0)).flatten(1).sum(1)


def _reverse(after: Level, now: Level, floor: Tensor, variance_fraction: Tensor, like: Tensor) -> Reverse:
    """Of the step from ``now`` to ``after``; ``floor`` replaces the posterior variance where that is 0."""
    weight_x_0, _, lower = posterior(after, now)
    lower = torch.where(after.sigma == 0, floor.to(lower.device), lower)
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
            "variance=learned needs a denoiser that learned one, this has none; take variance=forward or posterior, "
            "or train with objective=hybrid"
        )
    return prediction.variance_fraction


def _levels(denoiser: nn.Module, steps: int | None) -> list[Level]:
    if denoiser.schedule.steps == 1:
        raise UserError(
            "a process of a single noise level has no way from noise to data to bound; train another recipe"
        )
    levels = denoiser.schedule.grid(steps)
    if len(levels) < 3:
        raise UserError(f"the bound belongs to at least 2 steps, got {len(levels) - 1}; take more")
    return levels


def _check(variance: str, decoder: str, x_0: Tensor) -> None:
    for name, value, known in (("variance", variance, VARIANCES), ("decoder", decoder, DECODERS)):
        if value not in known:
            raise UserError(f"{name} of the bound must be one of {', '.join(known)}, got {value!r}")
    if decoder == "8bit" and not are_bytes(x_0):
        raise UserError(
            f"decoder=8bit codes the 256 values k / 127.5 - 1 from -1 to 1, got data from {x_0.min().item():.4g} to "
            f"{x_0.max().item():.4g} that are not of them; take decoder=gaussian"
        )
