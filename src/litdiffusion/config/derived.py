"""``derived``: values that one part declares for others, computed here for runs and for notebooks."""

import contextlib
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from litdiffusion.codecs import Codec
from litdiffusion.config.make import make_a
from litdiffusion.config.metrics import METRICS
from litdiffusion.config.settings import num_classes_of
from litdiffusion.data import Facts, facts_of
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.measure.quality import Quality
from litdiffusion.training.hardware import precision_for

STD_ITEMS = 2000
_CACHE: dict[tuple[Callable, str], dict[str, Any]] = {}


def merged(
    cfg: DictConfig, run_dir: Path, facts: Facts, codec: Codec, schedule: NoiseSchedule, quality: Quality | None
) -> DictConfig:
    """A read-only copy of ``cfg`` with every value of ``derived``; the only merge after composition."""
    values = {"run_dir": str(run_dir), **of_data(cfg, facts, codec), **of_schedule(schedule)}
    values |= {**of_metric(cfg, quality.rising if quality else ()), **of_hardware(cfg, facts)}
    result = OmegaConf.merge(cfg, {"derived": values})
    OmegaConf.set_readonly(result, True)
    return result


def of_data(cfg: DictConfig, facts: Facts, codec: Codec) -> dict[str, Any]:
    """The values that follow from the data, in the codec's latent space."""
    shape, num_classes = codec.latent_shape(facts.shape), num_classes_of(cfg, facts)
    return {
        "shape": list(shape),
        "out_channels": shape[0] * (2 if cfg.learned_variance else 1),
        "num_classes": num_classes,
        "num_class_embeds": num_classes + 1 if num_classes else None,
        "sigma_data": _std(codec.encode(facts.training_reference(STD_ITEMS))),
    }


def of_schedule(schedule: NoiseSchedule) -> dict[str, Any]:
    """The values that follow from the noise schedule."""
    return {"noise_label_range": list(schedule.noise_label_range)}


def of_metric(cfg: DictConfig, rising: Collection[str]) -> dict[str, Any]:
    """Which number selects the best checkpoint; larger values of the metrics in ``rising`` are better."""
    monitor = cfg.metric if cfg.metric.startswith("quality/") or cfg.metric in METRICS else METRICS[0]
    return {"monitor": monitor, "mode": better(monitor, rising)}


def of_hardware(cfg: DictConfig, facts: Facts) -> dict[str, Any]:
    """The precision that ``trainer.precision=auto`` stands for, given this machine and these data."""
    return {"precision": precision_for(cfg.trainer.precision, cfg.trainer.accelerator, facts.shape)}


def better(metric: str, rising: Collection[str]) -> str:
    """``max`` or ``min``: whether larger or smaller values of ``quality/NAME`` or ``samples/NAME`` are better."""
    return "max" if metric.partition("/")[2] in rising else "min"


def rising_of(cfg: DictConfig) -> Collection[str]:
    """The names of the config's metrics that are better when larger, before any data are loaded."""
    target = (cfg.get("metrics") or {}).get("_target_")
    return get_class(target).rising if target else ()


def look_up(name: str, cfg: DictConfig) -> Any:
    """One value of ``derived`` for a config that no run has filled in; loads the data, trains nothing.

    The result is cached by the content of the config.
    """
    compute = {"noise_label_range": _schedule, "monitor": _metric, "mode": _metric}.get(name, _data)
    key = compute, _content(cfg)
    if key not in _CACHE:
        _CACHE[key] = compute(cfg)
    value = _CACHE[key][name]
    return (
        OmegaConf.create(value) if isinstance(value, list) else value
    )  # a ListConfig, because a plain list cannot resolve ${derived.shape.0}


def _data(cfg: DictConfig) -> dict[str, Any]:
    with contextlib.redirect_stdout(sys.stderr):  # because a config that is printed goes to stdout
        facts = facts_of(make_a(L.LightningDataModule, cfg.data, "data"))
    return of_data(cfg, facts, make_a(Codec, cfg.codec, "codec")) | of_hardware(cfg, facts)


def _schedule(cfg: DictConfig) -> dict[str, Any]:
    return of_schedule(make_a(NoiseSchedule, cfg.schedule, "schedule"))


def _metric(cfg: DictConfig) -> dict[str, Any]:
    return of_metric(cfg, rising_of(cfg))


def _content(cfg: DictConfig) -> str:
    plain = OmegaConf.to_container(cfg, resolve=False)
    return json.dumps({key: value for key, value in plain.items() if key not in ("derived", "hydra")}, default=str)


def _std(x: Tensor) -> float:
    """Standard deviation of all numbers in ``x``, to four digits against rounding errors; 0 becomes 1."""
    std = float(f"{x.double().std(correction=0).item():.4g}")
    return std or 1.0
