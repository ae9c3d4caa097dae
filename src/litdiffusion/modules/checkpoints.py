"""Reading checkpoints: safely, and with one clear line where a file is not what it should be."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from litdiffusion.errors import UserError
from litdiffusion.modules.diffusion import DiffusionModule


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file of this project, loaded with ``weights_only=True`` onto the CPU.

    Raises:
        UserError: a missing, unreadable, damaged or foreign file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; give the path of a .ckpt file, as printed at the end of a run")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint ({reason}); it is damaged or not one of litdiffusion's: take "
            f"another file of the same folder"
        ) from error
    if not isinstance(content, dict) or "litdiffusion" not in content:
        raise UserError(f"{path} was not written by litdiffusion; give a .ckpt file of one of its runs")
    return content


SAME = (
    "data",
    "conditional",
    "model",
    "codec",
    "schedule",
    "parameterization",
    "times",
    "weighting",
    "seed",
    "ema_decay",
    "label_dropout",
    "learned_variance",
)
FREE = {"root", "path", "num_workers", "memory_limit_gb"}


def check_fits(content: dict[str, Any], module: DiffusionModule, path: str | Path) -> None:
    """Refuses a checkpoint of another model or process, naming the first difference."""
    now, then = module.record.get("config", {}), content["litdiffusion"].get("config", {})
    for key in SAME:
        for where, have, need in differences(then.get(key, now.get(key)), now.get(key), key):
            raise UserError(
                f"{path} was trained with {where}={have}, this run has {where}={need}; start with the overrides it "
                f"was trained with"
            )
    stored, wanted = content["state_dict"], module.state_dict()
    for name in sorted(stored.keys() | wanted.keys()):
        have = tuple(stored[name].shape) if name in stored else "absent"
        need = tuple(wanted[name].shape) if name in wanted else "absent"
        if have != need:
            raise UserError(
                f"{path} holds another model: {name} is {have} there and {need} here; start with the overrides "
                f"it was trained with"
            )


def differences(then: Any, now: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, value then, value now) wherever two plain configs differ, but for places of files."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            # A setting newer than the checkpoint, and off, changes nothing.
            if key not in FREE and (key in then or now[key]):
                yield from differences(then.get(key), now.get(key), f"{where}.{key}")
    elif then != now:
        yield where, then, now
