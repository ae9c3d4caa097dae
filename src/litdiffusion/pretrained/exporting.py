"""Exports a trained model: the weights as safetensors, the config as json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from litdiffusion.config.keys import Use, decides
from litdiffusion.config.received import checked_description
from litdiffusion.errors import UserError
from litdiffusion.pretrained.averages import posthoc_average, with_average
from litdiffusion.pretrained.card import write_card
from litdiffusion.runs.files import write_atomically
from litdiffusion.training.checkpoints import LAST, read_checkpoint

WEIGHTS, CODEC_WEIGHTS, CONFIG = "model.safetensors", "codec.safetensors", "config.json"
CODEC = "codec."
"""Prefix of the codec's tensors in a checkpoint; most codecs have none."""
PREFIXES = {"ema": "ema.model.", "raw": "denoiser."}
"""Choice of weights -> prefix of the denoiser's tensors in a checkpoint."""


def check_weights(weights: str, ema: float | None = None) -> None:
    """Refuses unknown weights, and a post-hoc average together with the raw ones."""
    if weights not in PREFIXES:
        raise UserError(f"weights must be one of {', '.join(PREFIXES)}, got {weights!r}")
    if ema is not None and weights != "ema":
        raise UserError(f"ema={ema} is an average, and weights={weights} asks for none; leave out one of them")


def denoiser_state(path: str | Path, content: dict[str, Any], weights: str, ema: float | None) -> dict[str, Tensor]:
    """The denoiser's tensors in a checkpoint: averaged or raw, or with the post-hoc average of the width ``ema``."""
    state = with_prefix(content["state_dict"], PREFIXES[weights])
    return state if ema is None else with_average(state, posthoc_average(path, content, ema))


def with_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def export(
    checkpoint: str | Path,
    folder: str | Path,
    weights: str = "ema",
    ema: float | None = None,
    name: str | None = None,
) -> Path:
    """Writes the net's weights, the config and the card of a checkpoint into ``folder``, without pickled code.

    ``model.safetensors`` holds the tensors under the net's own names, as ``net.load_state_dict`` needs them, and
    ``codec.safetensors`` those of an autoencoder, if there is one.
    ``config.json`` holds what `Pretrained` needs to build net, process and sampler. ``weights`` and ``ema`` as there.
    ``README.md`` is written from the record of the checkpoint's run, see `write_card`, with pictures beside it;
    ``name`` is the model's name on the hub.

    Raises:
        UserError: the checkpoint cannot be read, ``weights`` is unknown, ``ema`` is out of reach, or ``folder`` already
            holds a model.
    """
    from safetensors.torch import save

    check_weights(weights, ema)
    folder = Path(folder)
    if any((folder / name).exists() for name in (WEIGHTS, CONFIG)):
        raise UserError(f"{folder} already holds an exported model, which would be overwritten; name another folder")
    content = read_checkpoint(checkpoint)
    checked_description(content["litdiffusion"], checkpoint)
    net = _contiguous(with_prefix(denoiser_state(checkpoint, content, weights, ema), "net."))
    codec = _contiguous(with_prefix(content["state_dict"], CODEC))
    record = _record(content, weights, ema)
    try:
        text = json.dumps(record, indent=1)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"the config of {checkpoint} holds more than plain values; take another file") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / WEIGHTS, save(net, {"format": "pt", "weights": weights}))
        if codec:
            write_atomically(folder / CODEC_WEIGHTS, save(codec, {"format": "pt"}))
        write_atomically(folder / CONFIG, text.encode())
        write_card(folder, Path(checkpoint), record["config"], name)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be written ({error.strerror}); name another one") from error
    return folder


def read_export(folder: str | Path, weights: str = "ema") -> dict[str, Any]:
    """The content of an exported model in the form of a checkpoint: ``litdiffusion`` and ``state_dict``.

    Raises:
        UserError: files are missing or damaged, or ``weights`` were not exported.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        record = json.loads((folder / CONFIG).read_text())
        exported = record["weights"]
        if weights != exported:
            raise UserError(f"{folder} holds only the {exported} weights; take weights={exported}")
        net = load_file(folder / WEIGHTS)
        codec = load_file(folder / CODEC_WEIGHTS) if (folder / CODEC_WEIGHTS).is_file() else {}
    except FileNotFoundError as error:
        last = folder / "checkpoints" / LAST
        remedy = (
            f"{last}, since this is a run's folder" if last.is_file() else "a folder that litdiffusion export wrote"
        )
        raise UserError(f"{error.filename or folder / WEIGHTS} is missing; take {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} holds no intact exported model ({error}); export it again") from error
    state = {f"{PREFIXES[exported]}net.{k}": v for k, v in net.items()} | {f"{CODEC}{k}": v for k, v in codec.items()}
    return {"litdiffusion": record, "state_dict": state}


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, cloned because safetensors refuses what shares memory or is not contiguous."""
    return {name: value.clone().contiguous() for name, value in state.items()}


def _record(content: dict[str, Any], weights: str, ema: float | None) -> dict[str, Any]:
    record = content["litdiffusion"]
    config = {key: _without_folders(value) for key, value in record["config"].items() if decides(key, Use.EXPORT)}
    config["derived"] = {**config["derived"], "run_dir": None}
    facts = {key: record[key] for key in ("value_range", "class_names") if key in record}
    width = {} if ema is None else {"ema": ema}
    return {"format": "litdiffusion 1", "weights": weights, **width, **facts, "config": config}


def _without_folders(value: Any) -> Any:
    """The value with the last part alone of each path of this machine: an export is made for others."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value
