"""The variational bound of a chain on the negative log-likelihood, term by term.

``-log p(x_0) <= KL(q(x_T | x_0) || prior) + sum_{i=2..T} KL(q(x_s | x_t, x_0) || p(x_s | x_t)) - E log p(x_0 | x_1)``
with s the level below t (Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation
5). ``p(x_s | x_t)`` is normal around the posterior mean at the predicted x_0; its variance lies between the posterior
and the forward one, at a place called the spread (`gaussian.log_variance_between`): 0, 1, or learned.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from litdiffusion.errors import UserError
from litdiffusion.gaussian import diffuse, log_variance_between, posterior, scaled, transition
from litdiffusion.likelihood.normals import kl_divergence, log_density, log_probability_8bit
from litdiffusion.schedules import Chain
from litdiffusion.types import Level, Noise, Prediction

SPREADS = {"posterior": 0.0, "forward": 1.0, "learned": None}
DECODERS = ("8bit", "gaussian")
OFF_GRID = 0.01
"""In units of an 8-bit step: what the rounding of float32 and bfloat16-free arithmetic never reaches."""


class BoundTerms(NamedTuple):
    """Nats per sample, from one draw of noise at every level.

    ``prior`` (B,) and ``decoder`` (B,) are the first and the last term of the bound, ``steps`` (B, T - 1) the divergences
    of the steps from ``times`` (T - 1,) = 2/T, ..., 1 to the level below.
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor
    times: Tensor

    @property
    def total(self) -> Tensor:
        """The bound (B,): in expectation over the noise at least ``-log p(x_0)``."""
        return self.prior + self.steps.sum(1) + self.decoder


@torch.no_grad()
def variational_bound(
    denoiser: nn.Module,
    x_0: Tensor,
    variance: str = "forward",
    decoder: str = "8bit",
    cond: Tensor | None = None,
    noise: Noise = torch.randn_like,
    steps: int | None = None,
) -> BoundTerms:
    """Every term of the bound for x_0 (B, ...), one network call per level; memory does not grow with T.

    Args:
        denoiser: (x_t, level, cond) -> `Prediction`, with a ``schedule``.
        x_0: data in model space; values ``k / 127.5 - 1`` for the 8-bit decoder.
        variance: of the reverse steps: "posterior", "forward" or "learned".
        decoder: ``p(x_0 | x_1)``, see `bound_term`.
        steps: a bound of the model that visits only as many levels of the chain (or of a process in continuous time);
            None takes all of a chain.

    Raises:
        UserError: fewer than two levels, data that the decoder cannot code, or variances that were not learned.
    """
    _check(variance, decoder)
    if decoder == "8bit":
        check_bytes(x_0)
    levels = denoiser.schedule.grid(steps)
    if len(levels) < 3:
        raise UserError(f"the bound needs at least 2 levels, got {len(levels) - 1}; take schedule=linear or more steps")
    floor = first_posterior_variance(levels[-2], levels[-3])
    terms = []
    for now, after in pairwise(levels):
        x_t = diffuse(x_0, noise(x_0), now)
        prediction = _with_spread(denoiser(x_t, now, cond), variance)
        terms.append(_decoder(x_0, prediction, now, floor, decoder) if after.is_clean else _step(x_0, prediction, after, now))
    *rising, last = torch.stack(terms, 1).flip(1).unbind(1)[::-1] if False else terms
    times = torch.stack([level.t for level in levels[-3::-1]])
    return BoundTerms(prior_divergence(x_0, levels[0], denoiser.schedule.prior_std), torch.stack(rising[::-1], 1), last, times)
