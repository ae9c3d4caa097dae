"""The log density of data under the probability flow: the ODE that shares its marginals with the diffusion."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.likelihood.divergence import Divergence, Exact, divergence
from litdiffusion.diffusion.parameterizations import V
from litdiffusion.diffusion.solver import solve
from litdiffusion.errors import UserError


class FlowLikelihood(NamedTuple):
    """``log_density`` (B,) in nats, ``latent`` (B, ...) at t = 1 that flows to x_0, and the denoiser's ``calls``."""

    log_density: Tensor
    latent: Tensor
    calls: int


def flow_log_likelihood(
    denoiser: nn.Module,
    x_0: Tensor,
    class_label: Tensor | None = None,
    divergence: Divergence | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> FlowLikelihood:
    """The log density of x_0 (B, ...) by the change of variables along the flow, in nats per sample.

    ``dx/dt = alpha' x_0 + sigma' eps`` and ``d log p(x(t))/dt = -div(dx/dt)`` are integrated from ``alpha * x_0`` at
    the cleanest trained time t_min to t = 1, where the prior N(0, prior_std²) is evaluated; the factor alpha is taken
    out of the density. What results is

    - to the solver's tolerance the density of what this flow draws from the prior, walked down to t_min, over alpha;
    - for the exact denoiser and the exact prior the density of ``x_0 + (sigma / alpha) eps`` at t_min: ``log p(x_0)``
      up to ``(sigma / alpha)² / 2 * (Laplacian of p) / p``, and tending to it with t_min. Data on a grid or a surface
      have no density: there it grows without end as t_min falls.

    N(0, prior_std²) is not quite the law at t = 1: for data of mean m and deviation s a latent at z prior deviations is
    off by about ``(z² - 1) / 2 * (1 - (alpha² s² + sigma²) / prior_std²) - z alpha m / sigma`` nats per coordinate.

    It is integrated over the angle ``phi = atan(sigma / alpha)``: ``dy/dphi = cos(phi) eps - sin(phi) x_0`` for
    ``y = x / sqrt(alpha² + sigma²)``, the same for every schedule. The angle is bounded where log SNR is not
    (alpha = 0), regular where time is not (sigma ~ sqrt(t) at the clean end of `VP`), and free of a chain's kinks from
    level to level: it takes fewer calls than time or log SNR, on chains down to a hundredth. A net that knows only the
    levels of a chain is asked between them too, by the nearest one's label.

    Args:
        denoiser: (x_t, level, class_label) -> `Prediction`, differentiable in x_t, with a ``schedule``. Clipping would
            put kinks into the flow.
        x_0: data in model space; its dtype is the solver's.
        class_label: what the denoiser is told.
        divergence: `Exact` (the default) or `Hutchinson`.
        rtol: tolerated relative error of a step, of y and of the log density, the root mean square over the batch.
        atol: tolerated absolute error, likewise.
        prior: log density (B,) at t = 1, in place of N(0, prior_std²).

    Raises:
        UserError: tolerances that are not positive, or a flow that cannot be solved to them.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020,
    arXiv 2011.13456, section 4.3; Chen et al., "Neural Ordinary Differential Equations", 2018, arXiv 1806.07366. In the
    angle it is the v of Salimans, Ho, 2022, arXiv 2202.00512, appendix D.
    """
    if not (rtol > 0 and atol > 0):
        raise UserError(f"rtol and atol of the flow must be positive, got {rtol} and {atol}; 1e-5 is usual")
    schedule = denoiser.schedule
    if schedule.steps == 1:
        raise UserError("a single noise level has no flow: its model has no likelihood; take schedule=linear, say")
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
    """The right-hand side in the angle, and its solution."""

    def __init__(self, denoiser: nn.Module, class_label: Tensor | None, directions: Tensor, low: Tensor, high: Tensor):
        self.denoiser, self.class_label, self.directions = denoiser, class_label, directions
        self.low, self.high = low, high
        self.calls = 0

    def __call__(self, angle: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """``(dy/dphi, div(dy/dphi))``, the second the change of log density along the path, negated twice."""
        self.calls += 1
        level = self.denoiser.schedule.at_angle(angle.cpu().double().clamp(self.low, self.high))
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            prediction = self.denoiser(level.radius * y, level, self.class_label)
            field = V().target(prediction.x_0, prediction.eps, level)
        return field.detach(), divergence(field, y, self.directions)

    def solve(self, y: Tensor, rtol: float, atol: float) -> tuple[Tensor, Tensor]:
        """y (B, ...) at the high angle and the integral (B,) of the divergence."""
        ends = torch.stack([self.low, self.high]).to(y.device)
        states, changes = solve(self, (y, y.new_zeros(len(y))), ends, rtol, atol, "dopri5", "take method=bound")
        return states[-1], changes[-1]
