"""Learning-rate schedules with a warm-up, as PyTorch's schedulers; any scheduler of ``torch.optim`` works as well."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from litdiffusion.errors import UserError


class WarmupCosine(LambdaLR):
    """Linear warm-up over ``warmup_steps``, then half a cosine down to ``final`` at ``total_steps``.

    The rate is multiplied by ``final + (1 - final) * (1 + cos(pi * p)) / 2`` with p the share of the steps after the
    warm-up.

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv 1608.03983.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 100, final: float = 0.0):
        warm = _warm_up(warmup_steps)
        if not 0 <= final <= 1:
            raise UserError(f"lr_schedule.final must lie in [0, 1] (a share of the base rate), got {final}")
        if not math.isfinite(total_steps):
            raise UserError(
                "lr_schedule=cosine needs a run of known length; set trainer.max_steps or trainer.max_epochs, or take "
                "lr_schedule=constant"
            )
        span = max(1, total_steps - warmup_steps)

        def factor(step: int) -> float:
            progress = min(1.0, max(0.0, (step - warmup_steps) / span))
            return warm(step) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))

        super().__init__(optimizer, factor)


class WarmupConstant(LambdaLR):
    """Linear warm-up over ``warmup_steps``, then the factor 1; the first step has the factor ``1 / warmup_steps``."""

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 100):
        super().__init__(optimizer, _warm_up(warmup_steps))


def _warm_up(steps: int) -> Callable[[int], float]:
    if steps < 0:
        raise UserError(f"lr_schedule.warmup_steps must not be negative, got {steps}")
    return lambda step: min(1.0, (step + 1) / max(1, steps))
