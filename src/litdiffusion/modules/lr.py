"""Learning-rate schedules: factors of the base rate as functions of the step."""

import math
from collections.abc import Callable

from litdiffusion.errors import UserError

Factor = Callable[[int], float]


def cosine(total_steps: int, warmup_steps: int = 100, final: float = 0.0) -> Factor:
    """Linear warm-up over ``warmup_steps``, then half a cosine down to ``final`` at ``total_steps``.

    ``factor(k) = final + (1 - final) * (1 + cos(pi * p)) / 2`` with p the share of the steps after the warm-up.

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv 1608.03983.
    """
    warm = constant(total_steps, warmup_steps)
    if not 0 <= final <= 1:
        raise UserError(f"lr_schedule.final must lie in [0, 1] (a share of the base rate), got {final}")
    span = max(1, total_steps - warmup_steps)

    def factor(step: int) -> float:
        progress = min(1.0, max(0.0, (step - warmup_steps) / span))
        return warm(step) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))

    return factor


def constant(total_steps: int, warmup_steps: int = 100) -> Factor:
    """Linear warm-up over ``warmup_steps``, then 1: the first step already moves, at ``1 / warmup_steps``."""
    if warmup_steps < 0:
        raise UserError(f"lr_schedule.warmup_steps must not be negative, got {warmup_steps}")
    return lambda step: min(1.0, (step + 1) / max(1, warmup_steps))
