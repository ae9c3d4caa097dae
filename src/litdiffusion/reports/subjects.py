"""The checkpoints, weights, samplers and steps of an evaluation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from litdiffusion.config.make import make
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError, nearest
from litdiffusion.measure.quality import Quality
from litdiffusion.pretrained.exporting import PREFIXES
from litdiffusion.pretrained.model import Pretrained

OWN = "own"
"""Name of the sampler that the checkpoint's run used."""
STEPS = (10, 25, 50)
"""What ``steps=null`` measures."""


class Subject(NamedTuple):
    """A checkpoint with one choice of weights (``width``: of a post-hoc average), and the metrics of its samples."""

    name: str
    path: str
    weights: str
    pretrained: Pretrained
    quality: Quality
    width: float | None = None


class NamedSampler(NamedTuple):
    """A sampler and its name in the tables."""

    name: str
    sampler: Sampler


def as_list(value: Any) -> list[Any]:
    """The list of a setting that is one value or several."""
    return list(value) if isinstance(value, (list, tuple, ListConfig)) else [value]


def subjects(cfg: DictConfig) -> Iterator[Subject]:
    """Every checkpoint of ``cfg.ckpt`` with all of ``cfg.weights`` and ``cfg.ema``; equal data are loaded once."""
    measures: dict[str, Quality] = {}
    paths = [str(path) for path in as_list(cfg.ckpt)]
    for path, name in zip(paths, names(paths), strict=True):
        widths = [] if cfg.ema is None else as_list(cfg.ema)
        for weights, width in [*((weights, None) for weights in as_list(cfg.weights)), *(("ema", w) for w in widths)]:
            pretrained = Pretrained(path, weights, cfg.trust, ema=width)
            if not cfg.get("metrics") and not pretrained.has("metrics"):
                raise UserError(f"{path} was trained with metrics=none; give metrics=vectors, classifier or inception")
            key = str((pretrained.part("data"), cfg.get("metrics") or pretrained.part("metrics")))
            key += str(pretrained.config.codec)
            if key not in measures:
                measures[key] = _make_quality(cfg, pretrained)
                measures[key].codec = pretrained.codec
            label = weights if width is None else f"ema {width}"
            yield Subject(name, path, label, pretrained, measures[key], width)


def fitting_samplers(cfg: DictConfig, pretrained: Pretrained, folder: Path) -> Iterator[NamedSampler]:
    """Every sampler of ``cfg.samplers`` that fits the process, at every number of ``cfg.steps``.

    ``steps=null`` is `STEPS`, and for the sampler of the checkpoint's run also its own number. A sampler that cannot
    be respaced (Langevin) is used only with its own number. ``folder`` holds the yamls of the samplers.
    """
    schedule, learned = pretrained.denoiser.schedule, pretrained.denoiser.learned_variance
    own = OmegaConf.select(pretrained.config, "sampler._target_")
    for name in as_list(cfg.samplers):
        sampler = pretrained.sampler if name == OWN else _make_sampler(name, folder)
        if sampler.unfit(schedule):
            print(f"sampler={name} does not fit this process: {sampler.unfit(schedule)}; it is left out", flush=True)
            continue
        for walk in _respaced(cfg, sampler, schedule, name == OWN and cfg.steps is None):
            walk.check(schedule, learned)
            yield NamedSampler(_own_name(own) if name == OWN else name, walk)


def names(paths: list[str]) -> list[str]:
    """A short name for each path: its last parts, at least two, as many as make the names different."""
    parts = [[part for part in Path(path).with_suffix("").parts if part != "checkpoints"] for path in paths]
    for depth in range(2, max(map(len, parts)) + 1):
        short = ["/".join(part[-depth:]) for part in parts]
        if len(set(short)) == len(set(paths)):
            return short
    return paths


def check_choices(cfg: DictConfig, folder: Path) -> None:
    """Refuses unknown weights and samplers, and invalid steps, before any work."""
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    for name in as_list(cfg.samplers):
        if name != OWN and name not in known:
            hint = nearest(str(name), known)
            raise UserError(f"samplers={name} is not known{hint} (known: {OWN}, {', '.join(known)})")
    for weights in as_list(cfg.weights):
        if weights not in PREFIXES:
            raise UserError(f"weights must be among {', '.join(PREFIXES)}, got {weights!r}")
    for steps in _steps(cfg):
        if type(steps) is not int or steps < 1:
            raise UserError(f"steps must be whole numbers of at least 1, got {steps!r}")


def _respaced(cfg: DictConfig, sampler: Sampler, schedule: NoiseSchedule, with_own: bool) -> Iterator[Sampler]:
    """The sampler with its own number of steps, if that is asked for or the only one, and with all others that fit."""
    if with_own or not sampler.respaceable:
        yield sampler
    if sampler.respaceable:
        measured = {len(sampler.levels(schedule)) - 1} if with_own else set()
        fitting = [steps for steps in _steps(cfg) if schedule.steps is None or steps <= schedule.steps]
        yield from (sampler.respaced(steps) for steps in fitting if steps not in measured)


def _steps(cfg: DictConfig) -> list[Any]:
    return list(STEPS) if cfg.steps is None else as_list(cfg.steps)


def _make_quality(cfg: DictConfig, pretrained: Pretrained) -> Quality:
    quality: Quality = make(cfg.metrics, "metrics") if cfg.get("metrics") else pretrained.metrics(cfg.data_root)
    return quality.attach(pretrained.data(cfg.data_root, cfg.data_path))


def _make_sampler(name: str, folder: Path) -> Sampler:
    return make(OmegaConf.load(folder / f"{name}.yaml"), f"samplers.{name}")


def _own_name(target: str) -> str:
    """``own (CLASS)``, with the name of the sampler's class."""
    return f"{OWN} ({target.rpartition('.')[2]})"
