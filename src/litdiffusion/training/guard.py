"""Checks of a training run: non-finite steps are skipped or end it, other problems are printed once."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from litdiffusion.errors import TrainingError
from litdiffusion.training.train_log import LossesOf


class Health:
    """Counts skipped steps, and prints each warning once.

    Args:
        skip_nonfinite: how many steps without a finite gradient a run may skip before it stops.
    """

    def __init__(self, skip_nonfinite: int = 0):
        self.allowed, self.skipped = skip_nonfinite, 0
        self._warned_keys: set[str] = set()

    def skip(self, step: int, diagnosis: str) -> None:
        """Counts a skipped step.

        Raises:
            TrainingError: more steps than allowed were skipped; names the ``diagnosis``.
        """
        if self.skipped < self.allowed:
            self.skipped += 1
            self.warn_once(f"nonfinite {self.skipped}", f"step {step} was skipped ({self.skipped} so far): {diagnosis}")
            return
        after = f" after {self.allowed} skipped steps" if self.allowed else ""
        raise TrainingError(
            f"the loss or its gradient became non-finite at step {step}{after} ({diagnosis}); lower optimizer.lr or "
            f"trainer.gradient_clip_val, take trainer.precision=32-true, or skip such steps with "
            f"skip_nonfinite={self.allowed + 10}"
        )

    def check_rate(self, groups: Sequence[dict[str, Any]], step: int, steps: float) -> None:
        """Warns if the learning rate of all parameter groups is 0 before the last step."""
        if not any(group.get("initial_lr", group["lr"]) for group in groups):
            self.warn_once(
                "rate", "optimizer.lr is 0, so nothing is learned; 1e-3 is usual for points, 2e-4 for images"
            )
        elif not any(group["lr"] for group in groups) and step < steps:
            self.warn_once(
                "rate", f"the learning rate is 0 from step {step} on, before the end; take lr_schedule=constant"
            )

    def warn_once(self, key: str, line: str) -> None:
        """Prints one line to stderr at the first call with this ``key``."""
        if key not in self._warned_keys:
            self._warned_keys.add(key)
            print(f"warning: {line}", file=sys.stderr, flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = state["skipped"]


def diagnosis(
    names: Sequence[str],
    norms: Tensor,
    losses: list[LossesOf],
    where: Callable[[LossesOf, int], str],
) -> str:
    """Cause of a non-finite step: the weight with the largest gradient, and the worst loss.

    Args:
        names: names of the W trained weights.
        norms: the norms (W,) of their gradients.
        losses: the losses of the step's batches.
        where: what is known of item k of a batch's losses.
    """
    # Under FSDP the gradient may lie in another process.
    name = names[int(_nan_as_inf(norms).argmax())] if names else "another process"
    worst = max(losses, key=lambda loss: _nan_as_inf(loss.value).max().item())
    index = int(_nan_as_inf(worst.value).argmax())
    value = worst.value.flatten()[index].item()
    return f"the largest gradient is that of {name}, the worst loss {value:.3g}{where(worst, index)}"


def sample_problem(x: Tensor, data: Tensor, value_range: tuple[float, float] | None) -> tuple[str, str] | None:
    """(kind, line) for samples ``x`` (n, ...) that are constant, saturated or not finite; None for others.

    Samples are compared with ``data`` of the same space. Constant: the std between samples is below 1 % of the data's.
    Saturated: the share of values at the ends of the range (low, high) is closer to 1 than to the data's share.
    """
    if not x.isfinite().all():
        count = int((~x.isfinite().flatten(1).all(1)).sum())
        return "infinite", f"{count} of {len(x)} samples are not finite; train longer, or give the sampler more steps"
    if len(x) > 1 and _mean_std(x) < 0.01 * _mean_std(data):
        return "constant", "all samples are the same; lower optimizer.lr, or train longer"
    if value_range is not None:
        share, usual = _share_at_ends(x, value_range), _share_at_ends(data, value_range)
        if share > (1 + usual) / 2:
            return "saturated", (
                f"{100 * share:.0f} % of the samples' values are at the ends of the value range, but "
                f"only {100 * usual:.0f} % of the data's; train longer, or give the sampler more steps"
            )
    return None


def _mean_std(x: Tensor) -> float:
    return x.double().std(dim=0).mean().item()


def _share_at_ends(x: Tensor, value_range: tuple[float, float]) -> float:
    low, high = value_range
    margin = 0.005 * (high - low)
    return ((x <= low + margin) | (x >= high - margin)).double().mean().item()


def _nan_as_inf(values: Tensor) -> Tensor:
    """The values flattened, with NaN replaced by infinity: NaN counts as the worst loss."""
    return values.flatten().nan_to_num(nan=float("inf"))
