"""Divergences of vector fields by automatic differentiation: exact or estimated."""

from typing import Protocol

import torch
from torch import Tensor

from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError


class Divergence(Protocol):
    """Chooses the directions e over which ``e . J e`` is summed."""

    def directions(self, x: Tensor) -> Tensor:
        """Directions (n, B or 1, ...) with the dtype and device of x (B, ...)."""


class Exact:
    """The exact trace of the Jacobian: d directions with one backward pass each, for low dimensions d."""

    def directions(self, x: Tensor) -> Tensor:
        """The unit vectors (d, 1, ...)."""
        d = x[0].numel()
        return torch.eye(d, dtype=x.dtype, device=x.device).view(d, 1, *x.shape[1:])


class Hutchinson:
    """``E[e . J e]`` over random e of unit covariance: unbiased, with ``probes`` backward passes in any dimension.

    The probes are drawn once per integration, so that the solver sees one differential equation. Random signs
    ("rademacher") have the smallest variance, ``2 * (sum of squares of the symmetrised Jacobian off its diagonal)``;
    for "normal" probes the sum includes the diagonal. The estimate of a log density is unbiased, and so is its mean
    over data.

    Args:
        probes: number of independent probes, whose estimates are averaged.
        law: distribution of the probes, "rademacher" or "normal".
        seed: seed of the probes.

    Source: Hutchinson, 1990 (Communications in Statistics 19); Grathwohl et al., "FFJORD: Free-form Continuous Dynamics
    for Scalable Reversible Generative Models", 2018, arXiv 1810.01367, section 3.
    """

    def __init__(self, probes: int = 1, law: str = "rademacher", seed: int = 0):
        if probes < 1:
            raise UserError(f"Hutchinson's estimate needs at least 1 probe, got probes={probes}")
        if law not in ("rademacher", "normal"):
            raise UserError(f"the law of the probes must be rademacher or normal, got {law!r}")
        self.probes, self.law, self.seed = probes, law, seed

    def directions(self, x: Tensor) -> Tensor:
        """The probes (probes, B, ...), divided by the square root of their number so that the sum is a mean."""
        generator = torch.Generator().manual_seed(fold_seed(self.seed, "probes"))
        normal = torch.randn(self.probes, *x.shape, generator=generator, dtype=x.dtype)
        probes = normal if self.law == "normal" else torch.where(normal < 0, -1.0, 1.0).to(x.dtype)
        return (probes / self.probes**0.5).to(x.device)


def divergence(field: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """``sum over e of e . (d field / dx) e`` (B,), for field (B, ...) computed from the leaf x (B, ...).

    One backward pass for each of the ``directions`` (n, B or 1, ...), with the memory of one pass.
    """
    total = x.new_zeros(len(x))
    for index, e in enumerate(directions):
        e = e.expand_as(x)
        (gradient,) = torch.autograd.grad(field, x, e, retain_graph=index + 1 < len(directions))
        total = total + (gradient * e).flatten(1).sum(1)
    return total
