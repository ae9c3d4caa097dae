"""``derived``: what parts declare for others. Each value is computed here, for a run and for an earlier reader."""

import json
from collections.abc import Callable, Collection
from typing import Any

import lightning as L
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from litdiffusion.config.make import make_a
from litdiffusion.config.settings import METRICS, num_classes_of
from litdiffusion.data import Facts, facts_of
from litdiffusion.diffusion.schedules import NoiseSchedule

DEVIATION_ITEMS = 2000
_KNOWN: dict[tuple[Callable, str], dict[str, Any]] = {}


def of_data(cfg: DictConfig, data: Facts, codec: nn.Module) -> dict[str, Any]:
    """What the data declare, in the codec's space."""
    shape, num_classes = codec.latent_shape(data.shape), num_classes_of(cfg, data)
    return {
        "shape": list(shape),
        "out_channels": shape[0] * (2 if cfg.learned_variance else 1),
        "num_classes": num_classes,
        "num_class_embeds": num_classes + 1 if num_classes else None,
        "sigma_data": _deviation(codec.encode(data.training_reference(DEVIATION_ITEMS))),
    }


def of_schedule(schedule: NoiseSchedule) -> dict[str, Any]:
    """What the noise schedule declares."""
    return {"noise_label_range": list(schedule.noise_label_range)}


def of_metric(cfg: DictConfig, rising: Collection[str]) -> dict[str, Any]:
    """What chooses the best checkpoint, where the metrics in ``rising`` are better when larger."""
    monitor = cfg.metric if cfg.metric.startswith("quality/") or cfg.metric in METRICS else METRICS[0]
    return {"monitor": monitor, "mode": way_up(monitor, rising)}


def way_up(metric: str, rising: Collection[str]) -> str:
    """``max`` or ``min``: which way ``quality/NAME`` or ``samples/NAME`` is better."""
    return "max" if metric.partition("/")[2] in rising else "min"


def rising_of(cfg: DictConfig) -> Collection[str]:
    """The names of the config's metrics that are better when larger, before any data are loaded."""
    target = (cfg.get("metrics") or {}).get("_target_")
    return get_class(target).rising if target else ()


def look_up(name: str, cfg: DictConfig) -> Any:
    """One value, for a config that no run has filled in: its data are loaded, but nothing is trained.

    It is computed once for each content of the config.
    """
    compute = {"noise_label_range": _schedule, "monitor": _metric, "mode": _metric}.get(name, _data)
    key = compute, _content(cfg)
    if key not in _KNOWN:
        _KNOWN[key] = compute(cfg)
    value = _KNOWN[key][name]
    return OmegaConf.create(value) if isinstance(value, list) else value  # so that ${derived.shape.0} finds its way


def _data(cfg: DictConfig) -> dict[str, Any]:
    data = make_a(L.LightningDataModule, cfg.data, "data")
    return of_data(cfg, facts_of(data), make_a(nn.Module, cfg.codec, "codec"))


def _schedule(cfg: DictConfig) -> dict[str, Any]:
    return of_schedule(make_a(NoiseSchedule, cfg.schedule, "schedule"))


def _metric(cfg: DictConfig) -> dict[str, Any]:
    return of_metric(cfg, rising_of(cfg))


def _content(cfg: DictConfig) -> str:
    plain = OmegaConf.to_container(cfg, resolve=False)
    return json.dumps({key: value for key, value in plain.items() if key not in ("derived", "hydra")}, default=str)


def _deviation(x: Tensor) -> float:
    """Of all numbers of the data together, in model space; four digits, so that it does not hang on a rounding."""
    deviation = float(f"{x.double().std(correction=0).item():.4g}")
    return deviation or 1.0
