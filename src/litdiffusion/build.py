"""The composition root: builds every object of a run from the config, in the order in which data flow through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from litdiffusion.callbacks import FinalValidation, Interrupts, OtherProcesses
from litdiffusion.codecs import Codec, ReconstructionObjective
from litdiffusion.config import checks, derived
from litdiffusion.config.guide import Guide
from litdiffusion.config.make import make, make_a, nodes
from litdiffusion.config.metrics import make_quality
from litdiffusion.config.optimizer import lr_schedule_maker, make_optimizer
from litdiffusion.config.public import public
from litdiffusion.config.settings import guidance_of
from litdiffusion.config.shapes import DummyOutput
from litdiffusion.config.trainer import check_requeue, make_loggers, make_trainer
from litdiffusion.data import Augment, Facts, facts_of, warn_of_scale
from litdiffusion.diffusion.denoisers import Denoiser, exact_denoiser
from litdiffusion.diffusion.objectives import DenoisingObjective
from litdiffusion.diffusion.parameterizations import Parameterization
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.diffusion.times import TimeSampler
from litdiffusion.diffusion.weightings import Weighting
from litdiffusion.measure.features import ClassifierFeatures
from litdiffusion.measure.quality import Quality
from litdiffusion.training import AutoencoderModule, DiffusionModule, TrainingModule
from litdiffusion.training.hardware import prepared, use_threads
from litdiffusion.training.length import total_steps


@dataclass(frozen=True)
class Run:
    """The folder of a run, its name and group on dashboards, and the overrides of its command line."""

    dir: Path
    name: str = "run"
    group: str | None = None
    overrides: tuple[str, ...] = ()
    extra_callbacks: tuple[L.Callback, ...] = ()
    """Callbacks in addition to those of the config, e.g. the pruning of a search."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What an earlier attempt measured on the data, see `keys.MEASURED`; a resumed run keeps it."""


@dataclass(frozen=True)
class Experiment:
    """All objects of one run, ready for ``trainer.fit(module, data)``.

    ``cfg`` is the config with ``derived`` filled in, ``facts`` describe the data, and ``dummy_output`` describes the
    net's output for two dummy items.
    """

    cfg: DictConfig
    data: L.LightningDataModule
    module: TrainingModule
    trainer: L.Trainer
    facts: Facts
    interrupts: Interrupts
    dummy_output: DummyOutput


def build(cfg: DictConfig, run: Run) -> Experiment:
    """Builds all parts of a run and checks them in the order of `config.checks`; does not change ``cfg``.

    Raises:
        UserError: the config, the data or the output folder cannot be used.
    """
    checks.check_config(cfg, run.dir)
    data = make_a(L.LightningDataModule, cfg.data, "data")
    facts = facts_of(data)
    use_threads(cfg.threads, facts.shape)
    quality = make_quality(cfg, facts, required=facts is data)
    cfg, codec, scale, schedule = derived.merged(cfg, run.dir, facts, quality, run.measured)
    if quality is not None:
        quality.codec = codec
    L.seed_everything(fold_seed(cfg.seed, "init") % 2**32, verbose=False)  # for the initial weights
    if schedule is None:
        module = build_autoencoder(cfg, facts.value_range, facts.augment, facts)
    else:
        warn_of_scale(scale, schedule.sigma_data, has_range=facts.value_range is not None and codec.in_data_space)
        exact = exact_denoiser(schedule, codec.latent_law(facts.mixture))
        of_data = {"class_names": facts.class_names, "augment": facts.augment}
        guide = Guide(cfg.guide, cfg, codec, partial(_given, facts), cfg.trusted)
        module = build_module(cfg, codec, schedule, guide, facts.value_range, exact, **of_data)
        module.sampling_denoiser(guidance=module.guidance)  # so that a guide that does not fit is refused at once
    interrupts = Interrupts()
    callbacks = [
        interrupts,
        OtherProcesses(),
        *build_callbacks(cfg, run, facts, quality),
        *run.extra_callbacks,
        FinalValidation(),
    ]
    context = {"run_dir": run.dir, "run_name": run.name, "run_group": run.group, "run_tags": list(cfg.tags)}
    context["rising"] = quality.rising if quality is not None else frozenset()
    trainer = make_trainer(cfg, make_loggers(cfg, **context), callbacks, run.overrides)
    check_requeue(trainer, cfg, run.dir)
    steps = total_steps(trainer, data)
    dummy_output = checks.check_parts(cfg, module, facts, quality, trainer, steps, in_sweep=run.group is not None)
    return Experiment(cfg, data, module, trainer, facts, interrupts, dummy_output)


def _given(facts: Facts) -> Facts:
    return facts  # a function with a name, which can be sent to spawned processes


def build_module(
    cfg: DictConfig,
    codec: Codec,
    schedule: NoiseSchedule,
    guide: Guide,
    value_range: tuple[float, float] | None,
    exact: nn.Module | None = None,
    kind: type[DiffusionModule] = DiffusionModule,
    class_names: Sequence[str] = (),
    augment: Augment | None = None,
) -> DiffusionModule:
    """Builds the Lightning module from a config whose ``derived`` is filled in.

    Args:
        cfg: config of a run or of a checkpoint.
        codec, schedule, guide: parts made from ``cfg``.
        value_range: smallest and largest value of the data, or None.
        exact: exact denoiser of the data, if it is known.
        kind: class of the module.
        class_names: names of the classes of the data.
        augment: random changes of training images, or None.
    """
    clip = codec.latent_range(value_range, tuple(cfg.derived.shape))
    # An objective takes bytes for bytes only where they are not standardised.
    numbers = None if clip is None or isinstance(clip[0], Tensor) else clip
    return kind(
        build_denoiser(cfg, schedule),
        build_objective(cfg, schedule, numbers),
        shape=tuple(cfg.derived.shape),
        sampler=make_a(Sampler, cfg.sampler, "sampler"),
        codec=codec,
        optimizer=partial(make_optimizer, cfg.optimizer),
        lr_schedule=lr_schedule_maker(cfg),
        ema_decay=cfg.ema_decay,
        seed=cfg.seed,
        clip=clip if cfg.clip_samples else None,
        exact_denoiser=exact,
        skip_nonfinite=cfg.skip_nonfinite,
        num_classes=cfg.derived.num_classes,
        conditions=OmegaConf.to_container(cfg.derived.conditions),
        class_dropout=cfg.class_dropout,
        guidance=guidance_of(cfg, cfg.guidance, guide.kind),
        guide=guide,
        class_names=class_names,
        augment=augment,
        description={"config": public(cfg), "value_range": value_range},
    )


def build_autoencoder(
    cfg: DictConfig,
    value_range: tuple[float, float] | None,
    augment: Augment | None = None,
    facts: Facts | None = None,
    kind: type[AutoencoderModule] = AutoencoderModule,
) -> AutoencoderModule:
    """Builds the Lightning module of a run without a noise schedule; ``facts`` are needed for a perceptual loss."""
    features = None
    if cfg.objective.get("perceptual_weight") and facts is not None and OmegaConf.select(cfg, "metrics.features"):
        classifier = make_a(ClassifierFeatures, cfg.metrics.features, "metrics.features").prepare(facts)
        features = classifier.differentiable
    return kind(
        _net(cfg),
        make_a(ReconstructionObjective, cfg.objective, "objective", features=features),
        shape=tuple(cfg.derived.shape),
        value_range=value_range,
        optimizer=partial(make_optimizer, cfg.optimizer),
        lr_schedule=lr_schedule_maker(cfg),
        ema_decay=cfg.ema_decay,
        seed=cfg.seed,
        augment=augment,
        skip_nonfinite=cfg.skip_nonfinite,
        description={"config": public(cfg), "value_range": value_range},
    )


def build_objective(
    cfg: DictConfig, schedule: NoiseSchedule, value_range: tuple[float, float] | None
) -> DenoisingObjective:
    """Builds the time sampler, the weighting and the loss that uses both."""
    times = make_a(TimeSampler, cfg.times, "times", schedule=schedule)
    weighting = make_a(Weighting, cfg.weighting, "weighting", schedule=schedule)
    parts = {"times": times, "weighting": weighting, "value_range": value_range}
    return make_a(DenoisingObjective, cfg.objective, "objective", **parts)


def build_denoiser(cfg: DictConfig, schedule: NoiseSchedule) -> Denoiser:
    """Builds net and parameterization and joins them with the schedule; needs ``cfg.derived``."""
    parameterization = make_a(Parameterization, cfg.parameterization, "parameterization", schedule=schedule)
    return Denoiser(_net(cfg), schedule, parameterization, cfg.learned_variance)


def _net(cfg: DictConfig) -> nn.Module:
    accelerator = OmegaConf.select(cfg, "trainer.accelerator", default="auto")  # checkpoints may have no trainer
    recompute = cfg.get("gradient_checkpointing", False)
    return prepared(make_a(nn.Module, cfg.model, "model"), cfg.compile, accelerator, recompute)


def build_callbacks(cfg: DictConfig, run: Run, facts: Facts, quality: Quality | None) -> list[L.Callback]:
    """Builds the callbacks of the config; each receives those objects of ``context`` that its constructor names."""
    context = {"run_dir": run.dir, "metric": cfg.metric, "quality": quality, "facts": facts}
    return [make(node, f"callbacks.{name}", **context) for name, node in nodes(cfg, "callbacks").items()]
