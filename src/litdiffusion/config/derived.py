"""``derived``: values that one part declares for others, computed here for runs and for notebooks."""

import contextlib
import copy
import io
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from litdiffusion.codecs import Codec
from litdiffusion.config.codecs import made_codec
from litdiffusion.config.make import make_a
from litdiffusion.config.metrics import METRICS
from litdiffusion.config.settings import conditions_of, diffuses, num_classes_of
from litdiffusion.data import Facts, Scale, facts_of, items_for_scale, scale_of
from litdiffusion.data.conditions import CLASS, condition_scales
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.measure.quality import Quality
from litdiffusion.training.hardware import precision_for

MOST = 4096
"""Largest number of coordinates with a mean and a deviation each: more would swell every config."""
_CACHE: dict[tuple[Callable, str], dict[str, Any]] = {}


def merged(
    cfg: DictConfig, run_dir: Path, facts: Facts, quality: Quality | None, measured: Mapping[str, Any] | None = None
) -> tuple[DictConfig, Codec, Scale, NoiseSchedule | None]:
    """A read-only copy of ``cfg`` with all of ``derived``, codec, latent scale and schedule; a run's only merge.

    The schedule is None for a run that trains an autoencoder.

    Codec and schedule are made here: after the values that they may need (``data_mean``, ``sigma_data``), and before
    those that follow from them.

    Args:
        cfg: the composed config.
        run_dir: the run's folder.
        facts: the facts about the data.
        quality: the metrics, if there are any.
        measured: what an earlier attempt measured on the data (`keys.MEASURED`), which a resumed run keeps.
    """
    measured = measured or {}
    items = facts.training_reference(items_for_scale(facts.shape))
    result = copy.deepcopy(cfg)
    _set(result, {"run_dir": str(run_dir), **of_scale(items), **measured})
    result, codec = made_codec(result)
    constants = codec.measured_on(items)
    scale = scale_of(codec.encode(items))
    values = {**of_data(cfg, facts, codec, scale), **of_hardware(cfg, facts), **constants, **measured}
    with open_dict(result):
        result.conditional = _told(values)
        result.data.update(getattr(facts, "found", {}))
    _set(result, values | of_metric(cfg, quality.rising if quality else ()))
    schedule = make_a(NoiseSchedule, result.schedule, "schedule") if diffuses(result) else None
    _set(result, of_schedule(schedule))
    OmegaConf.set_readonly(result, True)
    return result, codec, scale, schedule


def _told(values: Mapping[str, Any]) -> bool | list[str]:
    """The setting ``conditional`` with ``auto`` and ``true`` resolved: names, or whether there are classes alone."""
    classes, names = values["num_classes"] > 0, [scale["name"] for scale in values["conditions"]]
    return [*([CLASS] if classes else []), *names] if names else classes


def _set(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    """Sets these values of ``derived``, one by one: a merge would first compute those that it replaces."""
    with open_dict(cfg):
        for key, value in values.items():
            cfg.derived[key] = value


def of_scale(items: Tensor) -> dict[str, Any]:
    """Mean and deviation of training items in data space; one pair for all of more than `MOST` coordinates."""
    scale = scale_of(items)
    scale = (scale.pooled() if len(scale.mean) > MOST else scale).rounded()
    return {"data_mean": scale.mean.tolist(), "data_std": scale.std.tolist()}


def of_data(cfg: DictConfig, facts: Facts, codec: Codec, scale: Scale) -> dict[str, Any]:
    """The values that follow from the data, in the codec's latent space.

    Lets the data return the conditions that the config asks for.
    """
    shape, num_classes = codec.latent_shape(facts.shape), num_classes_of(cfg, facts)
    names = conditions_of(cfg, facts)
    facts.choose_conditions(names)
    return {
        "shape": list(shape),
        "out_channels": shape[0] * (2 if cfg.learned_variance else 1),
        "num_classes": num_classes,
        "conditions": condition_scales(names, facts.train.conditions) if names else [],
        "num_class_embeds": num_classes + 1 if num_classes else None,
        "sigma_data": scale.sigma_data,
    }


def of_schedule(schedule: NoiseSchedule | None) -> dict[str, Any]:
    """The values that follow from the noise schedule, if there is one."""
    return {"noise_label_range": None if schedule is None else list(schedule.noise_label_range)}


def of_metric(cfg: DictConfig, rising: Collection[str]) -> dict[str, Any]:
    """Which number selects the best checkpoint; larger values of the metrics in ``rising`` are better."""
    monitor = cfg.metric if cfg.metric.startswith("quality/") or cfg.metric in METRICS else METRICS[0]
    return {"monitor": monitor, "mode": better(monitor, rising)}


def of_hardware(cfg: DictConfig, facts: Facts) -> dict[str, Any]:
    """The precision that ``trainer.precision=auto`` stands for, given this machine and these data."""
    return {"precision": precision_for(cfg.trainer.precision, cfg.trainer.accelerator, facts.shape)[0]}


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
    special = {"noise_label_range": _schedule, "monitor": _metric, "mode": _metric}
    special |= dict.fromkeys(("data_mean", "data_std"), _scale)
    compute = special.get(name, _data)
    key = compute, _content(cfg)
    if key not in _CACHE:
        _CACHE[key] = compute(cfg)
    value = _CACHE[key][name]
    return (
        OmegaConf.create(value) if isinstance(value, list) else value
    )  # a ListConfig, because a plain list cannot resolve ${derived.shape.0}


def _scale(cfg: DictConfig) -> dict[str, Any]:
    look_up("shape", cfg)  # reads the data once for all of these values
    return _CACHE[_scale, _content(cfg)]


def _data(cfg: DictConfig) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):  # a run says itself what it has read
        facts = facts_of(make_a(L.LightningDataModule, cfg.data, "data"))
        items = facts.training_reference(items_for_scale(facts.shape))
    _CACHE[_scale, _content(cfg)] = of_scale(items)  # before the codec, which may need it
    _, codec = made_codec(cfg)
    codec.measured_on(items)
    return of_data(cfg, facts, codec, scale_of(codec.encode(items))) | of_hardware(cfg, facts)


def _schedule(cfg: DictConfig) -> dict[str, Any]:
    return of_schedule(make_a(NoiseSchedule, cfg.schedule, "schedule"))


def _metric(cfg: DictConfig) -> dict[str, Any]:
    return of_metric(cfg, rising_of(cfg))


def _content(cfg: DictConfig) -> str:
    plain = OmegaConf.to_container(cfg, resolve=False)
    return json.dumps({key: value for key, value in plain.items() if key not in ("derived", "hydra")}, default=str)
