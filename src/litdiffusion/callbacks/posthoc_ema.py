"""Averages of the weights from which an average of any width is put together after the run."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.runs.files import seal, write_atomically
from litdiffusion.training import DiffusionModule
from litdiffusion.training.posthoc import SNAPSHOTS, decay, gamma_of

UNPLANNED = 100
"""Steps between two snapshots at the start of a run whose length is not known, e.g. under ``trainer.max_time``."""


class PosthocEMA(L.Callback):
    """Tracks power-function averages of the weights, see `litdiffusion.training.posthoc`, and stores snapshots of them.

    The plain average of the module stays what is validated, sampled and exported. Each snapshot holds the averages in
    float16, 2 bytes a weight and width. At most ``kept`` lie on the disk: when there would be more, their interval
    doubles and every second one is removed. Every checkpoint holds the averages in float32, so a resumed run has the
    bits of one that was never stopped, and an average can end at any checkpoint. Of several processes the first writes.

    Args:
        run_dir: the run's folder; snapshots go to its folder ``posthoc_ema``.
        widths: widths of the tracked averages, two of them or more.
        every_n_steps: steps between two snapshots at first; None: so that the planned run has ``kept``.
        kept: largest number of snapshots.

    Raises:
        UserError: widths out of range or fewer than two, an interval below 1, fewer than 8 snapshots.

    Source: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2023, arXiv 2312.02696.
    """

    def __init__(
        self,
        run_dir: Path,
        widths: Sequence[float] = (0.05, 0.1),
        every_n_steps: int | None = None,
        kept: int = 32,
    ):
        if len(set(widths)) < 2:
            raise UserError(f"callbacks.posthoc_ema.widths needs two different widths or more, got {list(widths)}")
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"callbacks.posthoc_ema.every_n_steps must be at least 1, or null, got {every_n_steps}")
        if kept < 8:
            raise UserError(f"callbacks.posthoc_ema.kept must be at least 8, got {kept}; 32 reach the width 0.02")
        self.gammas = [gamma_of(width) for width in widths]
        self.folder, self.every_n_steps, self.kept = run_dir / SNAPSHOTS, every_n_steps, kept
        self._widths = list(widths)
        self._start, self._step, self._every = 0, 0, every_n_steps
        self._averages: list[dict[str, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "widths": self._widths,
            "start": self._start,
            "step": self._step,
            "every": self._every,
            "averages": [dict(average) for average in self._averages],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["widths"] != self._widths:
            return  # a new run that starts from a checkpoint of another one, so they begin anew
        self._start, self._step, self._every = (state_dict[name] for name in ("start", "step", "every"))
        self._averages = state_dict["averages"]

    def on_train_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self._every = self._every or self._planned_interval(trainer)
        weights = _weights(pl_module)
        known = bool(self._averages) and self._step == trainer.global_step
        if not known:  # also if the checkpoint that the run starts from has no averages
            self._start = self._step = trainer.global_step
        before = self._averages if known else [weights] * len(self.gammas)
        self._averages = [{k: average[k].to(w, copy=True) for k, w in weights.items()} for average in before]
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._remove_superfluous()  # a killed attempt may have been ahead of the checkpoint

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # a batch without an optimizer step
            return
        self._step = trainer.global_step
        weights = list(_weights(pl_module).values())
        for gamma, average in zip(self.gammas, self._averages, strict=True):
            torch._foreach_lerp_(list(average.values()), weights, 1 - decay(gamma, self._step - self._start))
        if (self._step - self._start) % self._interval == 0 and trainer.is_global_zero and not trainer.fast_dev_run:
            self._write()

    @property
    def bytes_per_weight(self) -> int:
        """Largest number of bytes on the disk for each weight of the net."""
        return 2 * len(self.gammas) * self.kept

    @property
    def _interval(self) -> int:
        """Steps between two snapshots: a function of the step alone, so that an attempt does not change the set."""
        passed = (self._step - self._start) / (self.kept * self._every)
        return self._every * 2 ** max(0, math.ceil(math.log2(passed))) if passed > 1 else self._every

    def _planned_interval(self, trainer: L.Trainer) -> int:
        steps = trainer.estimated_stepping_batches
        return max(1, math.ceil(steps / self.kept)) if math.isfinite(steps) and steps > 0 else UNPLANNED

    def _write(self) -> None:
        content = {"start": self._start, "step": self._step, "widths": self._widths}
        content["averages"] = [{k: _small(value) for k, value in average.items()} for average in self._averages]
        archive = io.BytesIO()
        torch.save({**content, "sealed": True}, archive)
        seal(archive)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"step_{self._step:08d}.pt", archive.getbuffer())
        self._remove_superfluous()

    def _remove_superfluous(self) -> None:
        """Removes snapshots of steps to come and those that the present interval leaves out."""
        for path in self.folder.glob("step_*.pt"):
            step = int(path.stem.removeprefix("step_"))
            if not self._start < step <= self._step or (step - self._start) % self._interval:
                path.unlink(missing_ok=True)


def _weights(module: DiffusionModule) -> dict[str, Tensor]:
    """The weights of the denoiser by name, in at least float32, as tensors that do not track gradients."""
    named = ((name, weight.detach()) for name, weight in module.denoiser.named_parameters())
    return {name: weight.to(torch.promote_types(weight.dtype, torch.float32)) for name, weight in named}


def _small(average: Tensor) -> Tensor:
    """The average in float16 on the CPU; as it is if a number is too large for that."""
    half = average.half()
    return (half if half.isfinite().all() else average).cpu()
