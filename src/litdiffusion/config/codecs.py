"""The codec of a run: an autoencoder is read from its checkpoint, or from a folder of diffusers."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict
from torch import Tensor

from litdiffusion.codecs import Codec
from litdiffusion.config.make import make_a
from litdiffusion.config.received import checked_description, checked_part
from litdiffusion.data.digest import tensor_digest
from litdiffusion.errors import UserError, first_line
from litdiffusion.training.checkpoints import LAST, is_autoencoder, read_checkpoint

AVERAGE = "ema.model."
"""Prefix of an autoencoder's averaged weights in its checkpoint."""
Source = tuple[dict[str, Any], dict[str, Tensor]]
"""Values for the codec's node, and the autoencoder's weights."""


def made_codec(cfg: DictConfig) -> tuple[DictConfig, Codec]:
    """The codec of a config, and the config with the network and checksum of the autoencoder that ``codec.ckpt`` names.

    Raises:
        UserError: ``codec.ckpt`` holds no autoencoder, or cannot be read.
    """
    if cfg.codec.get("ckpt") is None or cfg.codec.get("model") is not None:
        return cfg, make_a(Codec, cfg.codec, "codec")
    path = Path(cfg.codec.ckpt).expanduser()
    found, weights = _published(path) if (path / "config.json").is_file() else _trained(path)
    typed = {key: value for key, value in cfg.codec.items() if value is not None}
    cfg = cfg.copy()
    with open_dict(cfg):
        for key, value in {**found, "checksum": tensor_digest(weights)[:16]}.items():
            if key not in typed:
                cfg.codec[key] = value
    codec = make_a(Codec, cfg.codec, "codec")
    codec.model.load_state_dict(weights)
    return cfg, codec


def _trained(path: Path) -> Source:
    """The averaged autoencoder of a run of this project: its last checkpoint, or the path of any."""
    content = read_checkpoint(path / "checkpoints" / LAST if path.is_dir() else path)
    description = content["litdiffusion"]
    _, value_range, _ = checked_description(description, path)
    if not is_autoencoder(content):
        raise UserError(
            f"codec.ckpt={path} holds a diffusion, not an autoencoder; take the last.ckpt of a run with "
            f"recipe=autoencoder, such as experiment=mnist_autoencoder"
        )
    weights = {k.removeprefix(AVERAGE): v for k, v in content["state_dict"].items() if k.startswith(AVERAGE)}
    model = checked_part(description["config"].get("model"), "model")
    return {"model": model, "value_range": None if value_range is None else list(value_range)}, weights


def _published(folder: Path) -> Source:
    """An autoencoder that diffusers saved in this folder."""
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise UserError("codec=diffusers_vae needs the package diffusers; pip install diffusers") from error
    try:
        net = AutoencoderKL.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"codec.ckpt={folder} holds no AutoencoderKL of diffusers ({first_line(error)[:120]})"
        ) from error
    settings = {key: value for key, value in net.config.items() if not key.startswith("_") and value is not None}
    model = {
        "_target_": "litdiffusion.nets.AutoencoderAdapter",
        "net": {"_target_": "diffusers.AutoencoderKL", **settings},
    }
    return {"model": model}, {f"net.{name}": value for name, value in net.state_dict().items()}
