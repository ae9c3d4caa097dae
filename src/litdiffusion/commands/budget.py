"""``budget=00:08:00``: the number of steps that a time allows, measured before the first step and kept from then on."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from litdiffusion.build import Experiment, Run
from litdiffusion.commands.rehearsal import rehearsal
from litdiffusion.config.identity import action_for
from litdiffusion.config.make import nodes
from litdiffusion.config.public import config_and_digests
from litdiffusion.config.settings import budget_seconds
from litdiffusion.errors import UserError
from litdiffusion.runs.record import read_record

WARM_UP = 3
"""Steps before the measurement: the first ones take longer."""
LEAST, MOST, SHARE = 5, 20.0, 0.05
"""A measurement has so many steps, and more until so many seconds or this share of the budget have passed."""
VALIDATION_BATCHES = 4
REHEARSAL: dict[str, Any] = {
    **dict.fromkeys(("ckpt_path", "trainer.max_time", "trainer.max_epochs", "trainer.callbacks", "trainer.profiler")),
    "callbacks": {},
    "metric": "val/loss",
    "trainer.max_steps": 2**31,
    **dict.fromkeys(
        ("dry_run", "trainer.logger", "trainer.enable_checkpointing", "trainer.enable_progress_bar"), False
    ),
}
"""The config of a measurement, where it differs from that of the run."""


class Speed(NamedTuple):
    """Wall seconds of a step and of a validation, and of the whole measurement; steps between two validations."""

    step: float
    validation: float
    measurement: float
    interval: float


def with_budget(cfg: DictConfig, run: Run) -> DictConfig:
    """The config with the ``trainer.max_steps`` that ``budget`` allows; the same config without a budget.

    The steps are ``N = ((budget - measurement) (1 - share) - validation) / (step + validation / interval)``. ``share``
    is the sum of the largest shares of time that callbacks may take for pictures and metrics. What follows the last
    step, e.g. final samples, is not counted. A run that has begun keeps its steps while the budget stays the same, so a
    resumed run ends as if it had never stopped.

    Raises:
        UserError: a budget that is no time or too short for a step, that stands beside another length on the command
            line, or that is given to several processes.
    """
    if cfg.budget is None:
        return cfg
    seconds = budget_seconds(cfg.budget)
    _refuse_other_length(run.overrides)
    steps = _steps_kept(cfg, run)
    if steps is None:
        speed = measured_speed(cfg, run, seconds)
        steps = steps_within(seconds, speed, _share_of_callbacks(cfg))
        print(_told(cfg.budget, steps, speed), flush=True)
    cfg = cfg.copy()
    cfg.trainer.max_steps = steps
    return cfg


def steps_within(seconds: float, speed: Speed, share: float = 0.0) -> int:
    """The steps N of a run that ends within ``seconds``, see `with_budget`."""
    left = (seconds - speed.measurement) * (1 - share) - speed.validation
    steps = int(left / (speed.step + speed.validation / speed.interval))
    if steps < 1:
        raise UserError(
            f"the budget of {seconds:g} s is too short: a step takes {speed.step:.2g} s, a validation "
            f"{speed.validation:.2g} s, and measuring them took {speed.measurement:.2g} s; raise it, or set "
            f"trainer.max_steps"
        )
    return steps


def measured_speed(cfg: DictConfig, run: Run, seconds: float) -> Speed:
    """Trains and validates a few batches in a temporary folder, within the share `SHARE` of ``seconds`` if possible."""
    began = time.perf_counter()
    quiet = cfg.copy()
    for key, value in REHEARSAL.items():
        OmegaConf.update(quiet, key, value, merge=False)
    clock = StepClock(min(MOST, SHARE * seconds))
    with rehearsal(quiet, replace(run, extra_callbacks=(clock,))) as experiment:
        _refuse_several_processes(experiment.trainer.world_size)
        experiment.trainer.fit(experiment.module, experiment.data)
        step, interval = clock.seconds_per_step, _steps_between_validations(experiment.trainer)
        validation = _seconds_of_validation(experiment)
    return Speed(step, validation, time.perf_counter() - began, interval)


class StepClock(L.Callback):
    """Measures the wall time of optimizer steps, and stops training after ``seconds`` and `LEAST` steps."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)

    @property
    def seconds_per_step(self) -> float:
        (first, began), (last, ended) = self._first, self._last
        return (ended - began) / (last - first)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step < WARM_UP:
            return
        if trainer.strategy.root_device.type != "cpu":
            torch.accelerator.synchronize()
        self._last = trainer.global_step, time.perf_counter()
        self._first = self._first or self._last
        steps, elapsed = (now - then for now, then in zip(self._last, self._first, strict=True))
        trainer.should_stop = steps >= LEAST and elapsed >= self.seconds


def _seconds_of_validation(experiment: Experiment) -> float:
    """Wall seconds of a whole validation, from its first batches."""
    trainer = experiment.trainer
    batches = sum(trainer.num_val_batches)
    if not batches:
        return 0.0
    few = min(VALIDATION_BATCHES, batches)
    trainer.limit_val_batches, began = few, time.perf_counter()
    trainer.validate(experiment.module, experiment.data, verbose=False)
    elapsed = time.perf_counter() - began
    return elapsed * (batches / few if math.isfinite(batches) else 1)


def _steps_between_validations(trainer: L.Trainer) -> float:
    return trainer.val_check_batch / trainer.accumulate_grad_batches


def _share_of_callbacks(cfg: DictConfig) -> float:
    return sum(node.get("max_share") or 0.0 for node in nodes(cfg, "callbacks").values())


def _steps_kept(cfg: DictConfig, run: Run) -> int | None:
    """The steps of the run that has begun with this budget; None if they must be measured."""
    if not cfg.resume:
        return None
    action_for(run.dir, *config_and_digests(cfg))  # refuses another run before anything is measured
    record = read_record(run.dir)
    if record is None or record.starts_afresh or record.config.get("budget") != cfg.budget:
        return None
    return record.config["trainer"]["max_steps"]


def _refuse_other_length(overrides: Sequence[str]) -> None:
    for word in overrides:
        key, _, value = word.lstrip("+~").partition("=")
        if key in ("trainer.max_steps", "trainer.max_epochs") and value not in ("-1", "null"):
            raise UserError(f"budget and {key} both set the length of the run; leave one of them out")


def _refuse_several_processes(count: int) -> None:
    if count > 1:
        raise UserError(
            f"budget is measured in one process, not in {count}; set trainer.max_steps (the steps of one device are "
            f"printed with trainer.devices=1 dry_run=true)"
        )


def _told(budget: str, steps: int, speed: Speed) -> str:
    return (
        f"budget {budget}: {steps} steps of {speed.step:.3g} s, validations of {speed.validation:.3g} s "
        f"(measured in {speed.measurement:.1f} s); trainer.max_steps={steps} repeats this run"
    )
