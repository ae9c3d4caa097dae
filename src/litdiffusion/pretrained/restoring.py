"""Restores a Lightning module with all of its weights from a checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from litdiffusion.build import build_autoencoder, build_module
from litdiffusion.config.make import make
from litdiffusion.config.received import checked_description, checked_part
from litdiffusion.data.augment import augment_of
from litdiffusion.pretrained.model import Pretrained
from litdiffusion.training import AutoencoderModule, DiffusionModule, TrainingModule
from litdiffusion.training.checkpoints import is_autoencoder, read_checkpoint


def restored_module(
    path: str | Path,
    trust: str | Sequence[str] = (),
    kind: type[TrainingModule] | None = None,
    strict: bool = True,
    **settings: Any,
) -> TrainingModule:
    """The module of a checkpoint with all of its weights, to continue training or to sample.

    Args:
        path: path of the checkpoint.
        trust: as for `Pretrained`.
        kind: class of the module; None: `DiffusionModule`, or `AutoencoderModule` for the checkpoint of an autoencoder.
        strict: whether the names of all weights must fit.
        settings: settings that replace those of the stored config, e.g. ``seed=1``.
    """
    content = read_checkpoint(path)
    build = _autoencoder if is_autoencoder(content) else _diffusion
    module = build(content, path, trust, kind, settings)
    module.load_state_dict(content["state_dict"], strict=strict)
    module.on_load_checkpoint({key: value for key, value in content.items() if key != "loops"})
    return module.eval()


def _autoencoder(
    content: dict[str, Any],
    path: str | Path,
    trust: Any,
    kind: type[AutoencoderModule] | None,
    settings: dict[str, Any],
) -> AutoencoderModule:
    described, stored = checked_description(content["litdiffusion"], path), content["litdiffusion"]["config"]
    allowed = [trust] if isinstance(trust, str) else list(trust)
    names = [name for name in ("model", "objective", "optimizer", "lr_schedule") if stored.get(name)]
    parts = {name: checked_part(stored[name], name, allowed) for name in names}
    config = OmegaConf.merge({**described.settings, "compile": False}, parts, settings)
    return build_autoencoder(config, described.value_range, kind=kind or AutoencoderModule)


def _diffusion(
    content: dict[str, Any], path: str | Path, trust: Any, kind: type[DiffusionModule] | None, settings: dict[str, Any]
) -> DiffusionModule:
    pretrained = Pretrained(path, trust=trust)
    parts = {name: pretrained.part(name) for name in ("times", "weighting", "objective", "optimizer")}
    parts["lr_schedule"] = pretrained.part("lr_schedule") if pretrained.has("lr_schedule") else None
    parts |= {name: pretrained.section(name) for name in ("data", "metrics") if pretrained.has(name)}
    data = parts.get("data")
    config = OmegaConf.merge(pretrained.config, parts, settings)
    schedule = make(config.schedule, "schedule")
    augment = augment_of(data.get("augment") if isinstance(data, Mapping) else None)
    of_data = {"class_names": pretrained.class_names, "augment": augment}
    return build_module(
        config,
        pretrained.codec,
        schedule,
        pretrained.guide(),
        pretrained.value_range,
        kind=kind or DiffusionModule,
        **of_data,
    )
