"""The log density of data under the probability flow: the ODE with the same marginals as the diffusion."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.likelihood.divergence import Divergence, Exact, divergence
from litdiffusion.diffusion.parameterizations import V
from litdiffusion.diffusion.solver import solve
from litdiffusion.errors import UserError


class FlowLikelihood(NamedTuple):
    """``log_density`` (B,) in nats, the ``latent`` (B, ...) of x_0 at t = 1, and the number of denoiser ``calls``."""

    log_density: Tensor
    latent: Tensor
    calls: int


def flow_log_likelihood(
    denoiser: AnyDenoiser,
    x_0: Tensor,
    class_label: Tensor | None = None,
    divergence: Divergence | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> FlowLikelihood:
    """The log density of x_0 (B, ...) by the change of variables along the flow, in nats per sample.

    ``dx/dt = alpha' x_0 + sigma' eps`` and ``d log p(x(t))/dt = -div(dx/dt)`` are integrated from ``alpha * x_0`` at
    the cleanest training time t_min to t = 1, where the log density of the prior N(0, prior_std²) is added. Then the
    scaling by alpha is removed from the density. The result is

    - to the solver's tolerance, the density of samples of this flow: drawn from the prior, moved to t_min and divided
      by alpha;
    - for an exact denoiser and an exact prior, the density of ``x_0 + (sigma / alpha) eps`` at t_min. It differs from
      ``log p(x_0)`` by ``(sigma / alpha)² / 2 * (Laplacian of p) / p``, which vanishes as t_min -> 0: for modes of std
      0.4 up to 3e-3 nats at the 0.01 of `VP`, `VE` and a chain of 1000 levels, 1e-4 at EDM's 0.002. Data on a grid or a
      surface have no density: their value grows without bound as t_min -> 0.

    N(0, prior_std²) is not exactly the distribution at t = 1. For data of mean m and std s the error of a latent at z
    prior stds is about ``(z² - 1) / 2 * (1 - (alpha² s² + sigma²) / prior_std²) - z alpha m / sigma`` nats per
    coordinate.

    The integration runs over the angle ``phi = atan(sigma / alpha)``: ``dy/dphi = cos(phi) eps - sin(phi) x_0`` for
    ``y = x / sqrt(alpha² + sigma²)``, the same for every schedule. The angle is bounded where log SNR is not
    (alpha = 0), regular where time is not (sigma ~ sqrt(t) at the clean end of `VP`), and has no kinks at the levels of
    a chain. It needs fewer calls than time or log SNR, on chains down to a hundredth. Between the levels of a chain the
    net is given the noise label of the nearest level.

    Args:
        denoiser: (x_t, level, class_label) -> `Prediction`, differentiable in x_t, with a ``schedule``. It should not
            clip, because clipping puts kinks into the flow.
        x_0: data in model space; the solver uses its dtype.
        class_label: (B,) or None, passed to the denoiser.
        divergence: `Exact` (the default) or `Hutchinson`.
        rtol: tolerated relative error of a step in y and in the log density, root mean square over the batch.
        atol: tolerated absolute error of a step in y and in the log density, root mean square over the batch.
        prior: log density (B,) at t = 1, in place of N(0, prior_std²).

    Raises:
        UserError: for tolerances that are not positive, or a flow that cannot be solved to them.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020,
    arXiv 2011.13456, section 4.3; Chen et al., "Neural Ordinary Differential Equations", 2018, arXiv 1806.07366.
    ``dy/dphi`` is the v of Salimans, Ho, 2022, arXiv 2202.00512, appendix D.
    """
    if not (rtol > 0 and atol > 0):
        raise UserError(f"rtol and atol of the flow must be positive, got {rtol} and {atol}; 1e-5 is usual")
    schedule = denoiser.schedule
    if schedule.steps == 1:
        raise UserError("a single noise level has no flow and no likelihood; take schedule=linear or another chain")
    start, end = schedule.at(schedule.t_min), schedule.at(1.0)
    flow = _Flow(denoiser, class_label, (divergence or Exact()).directions(x_0), start.angle, end.angle)
    y, change = flow.solve(mix(start.alpha / start.radius, x_0, start.alpha * 0, x_0), rtol, atol)
    latent = float(end.radius) * y
    log_prior = normal_log_density(latent, schedule.prior_std) if prior is None else prior(latent)
    scale = math.log(start.alpha * end.radius / start.radius)
    return FlowLikelihood(log_prior + change + x_0[0].numel() * scale, latent, flow.calls)


def normal_log_density(x: Tensor, std: float) -> Tensor:
    """``log N(x; 0, std² I)`` (B,)."""
    return torch.distributions.Normal(0.0, std).log_prob(x).flatten(1).sum(1)


class _Flow:
    """The right-hand side of the flow in the angle, and its solution."""

    def __init__(
        self, denoiser: AnyDenoiser, class_label: Tensor | None, directions: Tensor, low: Tensor, high: Tensor
    ):
        self.denoiser, self.class_label, self.directions = denoiser, class_label, directions
        self.low, self.high = low, high
        self.calls = 0

    def __call__(self, angle: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """``(dy/dphi, div(dy/dphi))``; the second is the rate at which the log density falls along the path."""
        self.calls += 1
        level = self.denoiser.schedule.at_angle(angle.cpu().double().clamp(self.low, self.high))
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            prediction = self.denoiser(level.radius * y, level, self.class_label)
            field = V().target(prediction.x_0, prediction.eps, level)
        return field.detach(), divergence(field, y, self.directions)

    def solve(self, y: Tensor, rtol: float, atol: float) -> tuple[Tensor, Tensor]:
        """y (B, ...) at the high angle, and the integral (B,) of the divergence."""
        ends = torch.stack([self.low, self.high]).to(y.device)
        states, changes = solve(self, (y, y.new_zeros(len(y))), ends, rtol, atol, "dopri5", "take method=bound")
        return states[-1], changes[-1]
