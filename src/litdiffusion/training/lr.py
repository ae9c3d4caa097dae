"""Learning-rate schedules with a warm-up, as PyTorch's schedulers; any scheduler of ``torch.optim`` works as well."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from litdiffusion.errors import UserError


class _WarmupDecay(LambdaLR):
    """Linear warm-up, then ``final + (1 - final) * shape(p)``; p is the share of the steps after the warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: int,
        final: float,
        shape: Callable[[float], float],
    ):
        warm = _warm_up(warmup_steps)
        _check_share("final", final, "of the base rate")
        if not math.isfinite(total_steps):
            raise UserError(
                "a learning rate that decays needs a run of known length; set trainer.max_steps or "
                "trainer.max_epochs, or take lr_schedule=constant"
            )
        span = max(1, total_steps - warmup_steps)

        def factor(step: int) -> float:
            progress = min(1.0, max(0.0, (step - warmup_steps) / span))
            return warm(step) * (final + (1 - final) * shape(progress))

        super().__init__(optimizer, factor)


class WarmupCosine(_WarmupDecay):
    """Linear warm-up over ``warmup_steps``, then half a cosine down to ``final`` at ``total_steps``.

    The rate is multiplied by ``final + (1 - final) * (1 + cos(pi * p)) / 2`` with p the share of the steps after the
    warm-up.

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv 1608.03983.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 100, final: float = 0.0):
        super().__init__(optimizer, total_steps, warmup_steps, final, lambda p: 0.5 * (1 + math.cos(math.pi * p)))


class WarmupStableDecay(_WarmupDecay):
    """Linear warm-up over ``warmup_steps``, the full rate, then a line down to ``final`` at ``total_steps``.

    The rate is multiplied by ``final + (1 - final) * min(1, (1 - p) / (1 - hold))`` with p the share of the steps after
    the warm-up, of which the share ``hold`` has the full rate. ``hold = 0`` is a linear decay, ``hold = 1`` none.

    Source: Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
    2024, arXiv 2404.06395, section 4 (there with an exponential decay over a tenth of the steps).
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 100, hold: float = 0.3, final: float = 0.0
    ):
        _check_share("hold", hold, "of the steps")
        decay = max(1 - hold, 1e-9)
        super().__init__(optimizer, total_steps, warmup_steps, final, lambda p: min(1.0, (1 - p) / decay))


class WarmupConstant(LambdaLR):
    """Linear warm-up over ``warmup_steps``, then the factor 1; the first step has the factor ``1 / warmup_steps``."""

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 100):
        super().__init__(optimizer, _warm_up(warmup_steps))


def _warm_up(steps: int) -> Callable[[int], float]:
    if steps < 0:
        raise UserError(f"lr_schedule.warmup_steps must not be negative, got {steps}")
    return lambda step: min(1.0, (step + 1) / max(1, steps))


def _check_share(name: str, value: float, of: str) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"lr_schedule.{name} must lie in [0, 1] (a share {of}), got {value}")
