"""Divergences of vector fields by automatic differentiation: exact, or estimated."""

from typing import Protocol

import torch
from torch import Tensor

from litdiffusion.errors import UserError


class Divergence(Protocol):
    """Which directions e to sum ``e . J e`` over."""

    def directions(self, x: Tensor) -> Tensor:
        """(n, B or 1, ...) in x's dtype and device, for x (B, ...)."""


class Exact:
    """The trace of the Jacobian: d directions, one backward pass each. For low dimensions d."""

    def directions(self, x: Tensor) -> Tensor:
        """The unit vectors (d, 1, ...)."""
        d = x[0].numel()
        return torch.eye(d, dtype=x.dtype, device=x.device).view(d, 1, *x.shape[1:])


class Hutchinson:
    """``E[e . J e]`` over random e of unit covariance: unbiased, at ``probes`` backward passes whatever the dimension.

    The probes are drawn once per integration, so that the differential equation stays one. Signs ("rademacher") have
    the least variance, ``2 * (sum of squares of the symmetrised Jacobian off its diagonal)``; "normal" probes add the
    diagonal's. The estimate of a log density is unbiased, so its mean over data is too.

    Args:
        probes: independent ones, averaged.
        law: "rademacher" or "normal".
        seed: of the probes.

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
        """The probes over the root of their number (probes, B, ...)."""
        generator = torch.Generator().manual_seed(self.seed)
        normal = torch.randn(self.probes, *x.shape, generator=generator, dtype=x.dtype)
        probes = normal if self.law == "normal" else torch.where(normal < 0, -1.0, 1.0).to(x.dtype)
        return (probes / self.probes**0.5).to(x.device)


def divergence(field: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """``sum over e of e . (d field / dx) e`` (B,), for field (B, ...) computed from the leaf x (B, ...).

    ``directions`` (n, B or 1, ...); one backward pass each, memory of one.
    """
    total = x.new_zeros(len(x))
    for index, e in enumerate(directions):
        e = e.expand_as(x)
        (gradient,) = torch.autograd.grad(field, x, e, retain_graph=index + 1 < len(directions))
        total = total + (gradient * e).flatten(1).sum(1)
    return total
