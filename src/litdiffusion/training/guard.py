"""What goes wrong in a run: steps that are not finite are refused or skipped, other signs are told once."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.objectives import Losses
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import TrainingError
from litdiffusion.training.quartiles import NAMES


class Health:
    """Counts the steps that were skipped, and says what seems wrong, each thing once.

    Args:
        skip_nonfinite: how many steps without a finite gradient a run may skip before it stops.
    """

    def __init__(self, skip_nonfinite: int = 0):
        self.allowed, self.skipped = skip_nonfinite, 0
        self._warned_keys: set[str] = set()

    def skip(self, step: int, diagnosis: str) -> None:
        """Counts a step that is left out.

        Raises:
            TrainingError: one more than allowed; with the diagnosis.
        """
        if self.skipped < self.allowed:
            self.skipped += 1
            self.warn_once(f"nonfinite {self.skipped}", f"step {step} was skipped ({self.skipped} so far): {diagnosis}")
            return
        after = f" after {self.allowed} skipped steps" if self.allowed else ""
        raise TrainingError(
            f"the loss or its gradient became non-finite at step {step}{after} ({diagnosis}); lower optimizer.lr or "
            f"trainer.gradient_clip_val, take trainer.precision=32-true, or leave such steps out: "
            f"skip_nonfinite={self.allowed + 10}"
        )

    def check_rate(self, groups: Sequence[dict[str, Any]], step: int, steps: float) -> None:
        """Tells of a learning rate that is 0 in all parameter groups before the end."""
        if not any(group.get("initial_lr", group["lr"]) for group in groups):
            self.warn_once(
                "rate", "optimizer.lr is 0, so nothing is learned; 1e-3 is usual for points, 2e-4 for images"
            )
        elif not any(group["lr"] for group in groups) and step < steps:
            self.warn_once(
                "rate", f"the learning rate is 0 from step {step} on, before the end; take lr_schedule=constant"
            )

    def warn_once(self, key: str, line: str) -> None:
        """One line on stderr, the first time that ``key`` is told."""
        if key not in self._warned_keys:
            self._warned_keys.add(key)
            print(f"warning: {line}", file=sys.stderr, flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = state["skipped"]


def diagnosis(parameters: Iterable[tuple[str, nn.Parameter]], losses: list[Losses], schedule: NoiseSchedule) -> str:
    """Where a step went wrong: the largest gradient's parameter, and the worst loss with its quartile of times."""
    norms = {name: _norm(weight.grad) for name, weight in parameters if weight.grad is not None}
    name = max(norms, key=lambda key: norms[key])
    worst = torch.cat([_nan_as_inf(loss.value) for loss in losses])
    index, t = int(worst.argmax()), torch.cat([loss.t.flatten() for loss in losses])
    value = torch.cat([loss.value.flatten() for loss in losses])[index].item()
    quartile = NAMES[int((4 * schedule.place(t[index : index + 1])).ceil().clamp(1, 4)) - 1]
    return f"the largest gradient is that of {name}, the worst loss {value:.3g} in quartile {quartile}"


def sample_problem(x: Tensor, data: Tensor, value_range: tuple[float, float] | None) -> tuple[str, str] | None:
    """(kind, line) where samples ``x`` (n, ...) beside data of the same space are constant, saturated or not finite.

    Constant: less than 1 % of the data's deviation between samples. Saturated: of a range (low, high), more values at
    its ends than halfway from the data's own share to all.
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
                f"{100 * share:.0f} % of the samples' values are the least or the largest there is, "
                f"{100 * usual:.0f} % of the data's; train longer, or give the sampler more steps"
            )
    return None


def _mean_std(x: Tensor) -> float:
    return x.double().std(dim=0).mean().item()


def _share_at_ends(x: Tensor, value_range: tuple[float, float]) -> float:
    low, high = value_range
    margin = 0.005 * (high - low)
    return ((x <= low + margin) | (x >= high - margin)).double().mean().item()


def _norm(gradient: Tensor) -> float:
    norm = gradient.norm().item()
    return norm if norm == norm else float("inf")


def _nan_as_inf(values: Tensor) -> Tensor:
    """Larger is worse, and what is no number is worst of all."""
    return values.flatten().nan_to_num(nan=float("inf"))
