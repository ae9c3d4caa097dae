"""The composition root: from the config to the objects of a run, each built exactly once, in the order of the data."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from litdiffusion.checks import METRICS, check_folder, check_metric, check_settings, classes_of
from litdiffusion.codecs import Identity
from litdiffusion.data import DataModule
from litdiffusion.denoisers import Denoiser, GaussianMixtureDenoiser
from litdiffusion.errors import UserError
from litdiffusion.hardware import ALL_THREADS, fast_bf16
from litdiffusion.instantiate import make, make_a
from litdiffusion.modules import DiffusionModule
from litdiffusion.modules.storage import SealedCheckpointIO
from litdiffusion.objectives import DenoisingObjective, HybridObjective
from litdiffusion.parameterizations import Parameterization
from litdiffusion.quality import Quality
from litdiffusion.samplers import Sampler
from litdiffusion.schedules import NoiseSchedule
from litdiffusion.times import TimeSampler
from litdiffusion.trust import warn_of_strangers
from litdiffusion.weightings import Weighting

MOST_INNER_STEPS = 25
DEVIATION_ITEMS = 2000


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
    """Everything of one run, ready for ``trainer.fit(module, data)``."""

    data: DataModule
    module: DiffusionModule
    trainer: L.Trainer


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
    data = make_a(DataModule, cfg.data, "data")
    data.load()
    images = len(data.shape) == 3
    # A second thread costs a tiny net more than it gives, and several times its speed on a busy machine.
    torch.set_num_threads((ALL_THREADS if images else 1) if cfg.threads == "auto" else cfg.threads)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = "bf16-mixed" if images and fast_bf16(cfg.trainer.accelerator) else "32-true"
    data.accumulate, data.inner_steps = cfg.accumulate, inner_steps(cfg, images)
    quality = build_quality(cfg, data)
    module = build_module(cfg, data)
    trainer = build_trainer(cfg, run, data.inner_steps, quality)
    _check_processes(trainer, run)
    _set_length(cfg, trainer, data)
    return Experiment(data, module, trainer)


def build_module(cfg: DictConfig, data: DataModule) -> DiffusionModule:
    """The Lightning module for this data; fills in ``cfg.derived`` on the way."""
    codec = make_a(nn.Module, cfg.codec, "codec")
    shape = codec.latent_shape(data.shape)
    cfg.derived.shape, cfg.derived.num_classes = list(shape), data.num_classes
    cfg.derived.classes = classes = classes_of(cfg, data)
    cfg.derived.class_rows = classes + 1 if classes else None
    cfg.derived.out_channels = shape[0] * (2 if cfg.learned_variance else 1)
    cfg.derived.sigma_data = _deviation(codec.encode(data.training_reference(DEVIATION_ITEMS)))
    L.seed_everything(cfg.seed, verbose=False)  # of the initial weights
    denoiser = build_denoiser(cfg)
    parts = {"schedule": denoiser.schedule}
    sampler = make_a(Sampler, cfg.sampler, "sampler")
    sampler.check(denoiser.schedule, cfg.learned_variance)
    optimum = exact_denoiser(data, codec, denoiser.schedule)
    times = make_a(TimeSampler, cfg.times, "times", **parts)
    weighting = make_a(Weighting, cfg.weighting, "weighting", **parts)
    objective = _objective(cfg, data, times, weighting)
    return DiffusionModule(
        denoiser,
        objective,
        sampler=sampler,
        codec=codec,
        shape=shape,
        optimizer=make(cfg.optimizer, "optimizer"),
        lr_schedule=make(cfg.lr_schedule, "lr_schedule"),
        gradient_clip=cfg.gradient_clip,
        log_every=cfg.trainer.log_every_n_steps,
        ema_decay=cfg.ema_decay,
        seed=cfg.seed,
        clip=data.value_range if cfg.clip_samples else None,
        optimum=optimum,
        skip_nonfinite=cfg.skip_nonfinite,
        classes=classes,
        label_dropout=cfg.label_dropout,
        record={"config": OmegaConf.to_container(cfg, resolve=True), "value_range": data.value_range},
    )


def _objective(cfg: DictConfig, data: DataModule, times: TimeSampler, weighting: Weighting) -> DenoisingObjective:
    if not cfg.learned_variance:
        return DenoisingObjective(times, weighting)
    return HybridObjective(times, weighting, decoder="gaussian" if data.value_range is None else "8bit")


def build_denoiser(cfg: DictConfig) -> Denoiser:
    """Schedule, parameterization and net; needs ``cfg.derived.shape``."""
    schedule = make_a(NoiseSchedule, cfg.schedule, "schedule")
    parameterization = make_a(Parameterization, cfg.parameterization, "parameterization", schedule=schedule)
    cfg.derived.label_range = list(schedule.label_range)
    net = make_a(nn.Module, cfg.model, "model")
    if len(cfg.derived.shape) == 3:
        net = net.to(memory_format=torch.channels_last)
    if cfg.compile:
        net.compile()  # in place: the names in checkpoints stay as they are
    return Denoiser(net, schedule, parameterization, cfg.learned_variance)


def exact_denoiser(data: DataModule, codec: nn.Module, schedule: NoiseSchedule) -> GaussianMixtureDenoiser | None:
    """The truth, where the law of what is trained on is known in closed form."""
    law = getattr(data, "mixture", None) if isinstance(codec, Identity) else None
    return None if law is None else GaussianMixtureDenoiser(schedule, law.weights, law.means, law.std)


def _deviation(x: Tensor) -> float:
    """Of all numbers of the data together, in model space; four digits, so that it does not hang on a rounding."""
    deviation = float(f"{x.double().std(correction=0).item():.4g}")
    return deviation or 1.0


def build_quality(cfg: DictConfig, data: DataModule) -> Quality | None:
    """What samples are measured by; checks that the run's ``metric`` will be there, and says which way is up."""
    quality: Quality | None = make(cfg.metrics, "metrics").attach(data) if cfg.metrics else None
    check_metric(cfg, quality)
    monitored = cfg.metric.startswith("quality/")
    if monitored and cfg.callbacks.get("live_quality"):
        cfg.callbacks.live_quality.max_share = None  # the best checkpoint would be chosen by a stale number
    cfg.derived.monitor = cfg.metric if monitored or cfg.metric in METRICS else METRICS[0]
    cfg.derived.mode = "max" if quality and cfg.derived.monitor.partition("/")[2] in quality.rising else "min"
    return quality


def build_trainer(cfg: DictConfig, run: Run, inner_steps: int, quality: Quality | None) -> L.Trainer:
    """Lightning's Trainer with the loggers and callbacks of the config."""
    loggers = [
        make(node, f"logger.{name}", run_dir=run.dir, run_name=run.name, group=run.group)
        for name, node in cfg.logger.items()
        if node is not None and not cfg.dry_run  # they make folders
    ]
    # A node without a target holds settings for a callback that callbacks=none took out.
    nodes = {name: node for name, node in cfg.callbacks.items() if node is not None and "_target_" in node}
    callbacks = [make(node, f"callbacks.{name}", run_dir=run.dir, quality=quality) for name, node in nodes.items()]
    # Lightning counts calls of its loop where the config counts steps; the rows of the log are written by the module.
    calls = {"val_check_interval": cfg.trainer.val_check_interval // inner_steps, "log_every_n_steps": 1}
    node = OmegaConf.merge(cfg.trainer, {"max_epochs": -1, **calls})
    return make(
        node,
        "trainer",
        logger=loggers or False,
        callbacks=[*callbacks, *run.watchers],
        default_root_dir=str(run.dir),
        plugins=[SealedCheckpointIO()],
        enable_progress_bar="progress_bar" in nodes,  # Lightning's own counts calls of its loop
    )


def _check_processes(trainer: L.Trainer, run: Run) -> None:
    """Before a process of them is started: Lightning would start as many as asked for."""
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        raise UserError(
            f"trainer.devices={trainer.num_devices} is more than the {cores} cores of this machine; lower it"
        )
    if run.group is not None and trainer.world_size > 1:
        raise UserError("-m runs its jobs in one process each; for several devices start the jobs by a shell loop")


def _set_length(cfg: DictConfig, trainer: L.Trainer, data: DataModule) -> None:
    """Epochs become steps: learning rate, order of the data and progress bar count the whole run in steps."""
    if cfg.trainer.max_epochs is None:
        return
    batches = len(data.train.data) // (data.batch_size * trainer.world_size)
    steps = cfg.trainer.max_epochs * batches // data.accumulate
    if steps < 1:
        raise UserError(
            f"trainer.max_epochs={cfg.trainer.max_epochs} is less than one step: an epoch has {batches} batches and a "
            f"step takes accumulate={data.accumulate} of them; lower accumulate"
        )
    trainer.fit_loop.epoch_loop.max_steps = steps


def inner_steps(cfg: DictConfig, images: bool) -> int:
    """Steps per call of Lightning's loop: the largest number up to 25 that divides every interval of the run.

    Nothing then has to happen inside a call, so the number changes the speed and never the result.
    """
    nodes = [cfg.trainer, *(node for node in cfg.callbacks.values() if node is not None)]
    keys = ("val_check_interval", "log_every_n_steps", "every_n_steps", "every_n_train_steps")
    common = math.gcd(*(node[key] for node in nodes for key in keys if node.get(key)))
    if cfg.inner_steps == "auto":
        return 1 if images else max(n for n in range(1, MOST_INNER_STEPS + 1) if common % n == 0)
    if not isinstance(cfg.inner_steps, int) or cfg.inner_steps < 1 or common % cfg.inner_steps:
        raise UserError(f"inner_steps must be auto or a divisor of {common}, which divides every interval of this run")
    return cfg.inner_steps
