"""The composition root: from the config to the objects of a run, each built exactly once, in the order of the data."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from litdiffusion.callbacks import FinalValidation, Interrupts
from litdiffusion.codecs import Identity
from litdiffusion.config import derived
from litdiffusion.config.make import make, make_a
from litdiffusion.config.settings import check_folder, check_metric, check_monitors, check_settings
from litdiffusion.config.trainer import build_trainer
from litdiffusion.config.trust import warn_of_strangers
from litdiffusion.data import BYTES, Facts, facts_of
from litdiffusion.diffusion.denoisers import Denoiser, GaussianMixtureDenoiser
from litdiffusion.diffusion.objectives import DenoisingObjective, HybridObjective
from litdiffusion.diffusion.parameterizations import Parameterization
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.times import TimeSampler
from litdiffusion.diffusion.weightings import Weighting
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import Quality
from litdiffusion.runs.log import RowsLogger
from litdiffusion.training import DiffusionModule
from litdiffusion.training.hardware import ALL_THREADS, fast_bf16


@dataclass(frozen=True)
class Run:
    """Where a run writes, what dashboards call it and what was typed for it."""

    dir: Path
    name: str = "run"
    group: str | None = None
    overrides: tuple[str, ...] = ()
    watchers: tuple[L.Callback, ...] = ()
    """Callbacks beside those of the config: a search's, say."""


@dataclass(frozen=True)
class Experiment:
    """Everything of one run, ready for ``trainer.fit(module, data)``; ``facts`` is what its parts know of the data."""

    data: L.LightningDataModule
    module: DiffusionModule
    trainer: L.Trainer
    facts: Facts
    interrupts: Interrupts


def build(cfg: DictConfig, run: Run) -> Experiment:
    """All parts of a run; data errors come first, before any network is built.

    Raises:
        UserError: whatever is wrong with the config, the data or the output folder.
    """
    check_settings(cfg)
    warn_of_strangers(OmegaConf.to_container(cfg, resolve=False), cfg.trusted)
    if not cfg.dry_run:
        check_folder(run.dir)
    cfg.derived.run_dir = str(run.dir)
    data = make_a(L.LightningDataModule, cfg.data, "data")
    facts = facts_of(data)
    images = len(facts.shape) == 3
    # A second thread costs a tiny net more than it gives, and several times its speed on a busy machine.
    torch.set_num_threads((ALL_THREADS if images else 1) if cfg.threads == "auto" else cfg.threads)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = "bf16-mixed" if images and fast_bf16(cfg.trainer.accelerator) else "32-true"
    quality = build_quality(cfg, facts, required=facts is data)
    module = build_module(cfg, facts)
    interrupts = Interrupts()
    callbacks = [interrupts, *build_callbacks(cfg, run, facts, quality), *run.watchers, FinalValidation()]
    trainer = build_trainer(cfg, build_loggers(cfg, run), callbacks, run.overrides)
    _check_processes(trainer, run)
    return Experiment(data, module, trainer, facts, interrupts)


def build_module(cfg: DictConfig, data: Facts) -> DiffusionModule:
    """The Lightning module for this data; fills in ``cfg.derived`` on the way."""
    codec = make_a(nn.Module, cfg.codec, "codec")
    cfg.derived.update(derived.of_data(cfg, data, codec))
    L.seed_everything(cfg.seed, verbose=False)  # of the initial weights
    return assemble(cfg, codec, data.value_range, partial(exact_denoiser, data, codec))


def assemble(
    cfg: DictConfig,
    codec: nn.Module,
    value_range: tuple[float, float] | None,
    truth: Callable[[NoiseSchedule], nn.Module | None] = lambda schedule: None,
    kind: type[DiffusionModule] = DiffusionModule,
) -> DiffusionModule:
    """The module from a config whose ``derived`` is filled in; ``truth`` gives the data's exact denoiser, if any."""
    denoiser = build_denoiser(cfg)
    schedule = denoiser.schedule
    sampler = make_a(Sampler, cfg.sampler, "sampler")
    sampler.check(schedule, cfg.learned_variance)
    return kind(
        denoiser,
        build_objective(cfg, schedule, value_range),
        shape=tuple(cfg.derived.shape),
        sampler=sampler,
        codec=codec,
        optimizer=partial(make_optimizer, cfg.optimizer),
        lr_schedule=partial(make_lr_schedule, cfg.lr_schedule) if cfg.get("lr_schedule") else None,
        ema_decay=cfg.ema_decay,
        seed=cfg.seed,
        clip=value_range if cfg.clip_samples else None,
        optimum=truth(schedule),
        skip_nonfinite=cfg.skip_nonfinite,
        num_classes=cfg.derived.num_classes,
        class_dropout=cfg.class_dropout,
        record={"config": OmegaConf.to_container(cfg, resolve=True), "value_range": value_range},
    )


def build_objective(
    cfg: DictConfig, schedule: NoiseSchedule, value_range: tuple[float, float] | None
) -> DenoisingObjective:
    """Times, weighting and the loss over them."""
    times = make_a(TimeSampler, cfg.times, "times", schedule=schedule)
    weighting = make_a(Weighting, cfg.weighting, "weighting", schedule=schedule)
    if cfg.get("objective"):  # of a module that was made in a script
        return make_a(DenoisingObjective, cfg.objective, "objective", times=times, weighting=weighting)
    if not cfg.learned_variance:
        return DenoisingObjective(times, weighting)
    return HybridObjective(times, weighting, decoder="8bit" if value_range == BYTES else "gaussian")


def build_denoiser(cfg: DictConfig) -> Denoiser:
    """Schedule, parameterization and net; needs ``cfg.derived.shape``."""
    schedule = make_a(NoiseSchedule, cfg.schedule, "schedule")
    parameterization = make_a(Parameterization, cfg.parameterization, "parameterization", schedule=schedule)
    cfg.derived.update(derived.of_schedule(schedule))
    net = make_a(nn.Module, cfg.model, "model")
    if len(cfg.derived.shape) == 3:
        net = net.to(memory_format=torch.channels_last)
    if cfg.compile:
        net.compile()  # in place: the names in checkpoints stay as they are
    return Denoiser(net, schedule, parameterization, cfg.learned_variance)


def make_optimizer(node: DictConfig, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all weights; a target may also ask for the ``net`` or its ``named_parameters``."""
    weights = list(net.parameters())
    if str(node.get("_target_")).endswith(".Muon") and any(weight.ndim != 2 for weight in weights):
        raise UserError(
            f"optimizer._target_={node._target_} takes matrices alone, and this net has weights of other shapes; take "
            f"optimizer=muon, which leaves those to AdamW"
        )
    return make(node, "optimizer", net=net, params=weights, named_parameters=list(net.named_parameters()))


def make_lr_schedule(node: DictConfig, optimizer: torch.optim.Optimizer, steps: float) -> Any:
    """A scheduler that moves after every step, or Lightning's dictionary with one under ``scheduler``.

    The run's length is filled in where a scheduler that moves after every step takes it.
    """
    length = {"total_steps": steps, "T_max": steps}
    if "scheduler" not in node:
        scheduler = make(node, "lr_schedule", optimizer=optimizer, **({} if "epochs" in node else length))
        _check_monitored(scheduler)
        return scheduler
    settings = OmegaConf.to_container(node, resolve=True)
    by_step = settings.get("interval") == "step" and "epochs" not in node.scheduler
    scheduler = make(node.scheduler, "lr_schedule.scheduler", optimizer=optimizer, **(length if by_step else {}))
    if "monitor" not in settings:
        _check_monitored(scheduler)
    return {**settings, "scheduler": scheduler}


def _check_monitored(scheduler: Any) -> None:
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise UserError(
            "lr_schedule: ReduceLROnPlateau needs a number to look at, in Lightning's form: "
            "lr_schedule={scheduler: {_target_: ...ReduceLROnPlateau}, monitor: val/loss, interval: epoch}"
        )


def exact_denoiser(data: Facts, codec: nn.Module, schedule: NoiseSchedule) -> GaussianMixtureDenoiser | None:
    """The truth, where the law of what is trained on is known in closed form."""
    law = getattr(data, "mixture", None) if isinstance(codec, Identity) else None
    return None if law is None else GaussianMixtureDenoiser(schedule, law.weights, law.means, law.std)


def build_quality(cfg: DictConfig, data: Facts, required: bool = True) -> Quality | None:
    """What samples are measured by; checks that the run's ``metric`` will be there, and says which way is up.

    Metrics that do not fit the data are refused where they are ``required``; else one warning says why there are none.
    """
    quality: Quality | None = make(cfg.metrics, "metrics") if cfg.get("metrics") else None
    try:
        quality = quality and quality.attach(data)
    except UserError as error:
        if required:
            raise
        warnings.warn(f"samples are not measured: {error}", stacklevel=2)
        quality = None
    check_metric(cfg, quality)
    if cfg.metric.startswith("quality/") and cfg.callbacks.get("live_quality"):
        cfg.callbacks.live_quality.max_share = None  # the best checkpoint would be chosen by a stale number
    cfg.derived.update(derived.of_metric(cfg, quality.rising if quality else ()))
    check_monitors(cfg, quality)
    return quality


def build_callbacks(cfg: DictConfig, run: Run, data: Facts, quality: Quality | None) -> list[L.Callback]:
    """Those of the config; each gets what it asks for of the run's folder, the data and the metrics."""
    # A node without a target holds settings for a callback that callbacks=none took out.
    nodes = {name: node for name, node in cfg.callbacks.items() if node is not None and "_target_" in node}
    facts = {"run_dir": run.dir, "quality": quality, "data": data}
    return [make(node, f"callbacks.{name}", **facts) for name, node in nodes.items()]


def build_loggers(cfg: DictConfig, run: Run) -> list[L.pytorch.loggers.Logger]:
    """The dashboards, then the table, so that ``trainer.logger`` is a dashboard where there is one."""
    if cfg.dry_run or cfg.trainer.logger is False or cfg.trainer.barebones:
        return []  # they make folders
    nodes = {name: node for name, node in cfg.logger.items() if node is not None}
    place = {"run_dir": run.dir, "run_name": run.name, "group": run.group, "tags": list(cfg.tags)}
    loggers = [make(node, f"logger.{name}", **place) for name, node in nodes.items()]
    return sorted(loggers, key=lambda logger: isinstance(logger, RowsLogger))


def _check_processes(trainer: L.Trainer, run: Run) -> None:
    """Before a process of them is started: Lightning would start as many as asked for."""
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        raise UserError(
            f"trainer.devices={trainer.num_devices} is more than the {cores} cores of this machine; lower it"
        )
    if run.group is not None and trainer.world_size > 1:
        raise UserError("-m runs its jobs in one process each; for several devices start the jobs by a shell loop")
