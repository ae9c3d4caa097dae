"""The device and the output folder of a script."""

from itertools import count
from pathlib import Path

import torch
from omegaconf import DictConfig

from litdiffusion.config.settings import check_folder
from litdiffusion.errors import UserError, first_line
from litdiffusion.pretrained.locations import folder_beside


def folder_for(cfg: DictConfig, name: str, file: str, ckpt: str | None = None) -> Path:
    """Makes the folder ``cfg.out``, or the first unused one of ``name_000``, ``name_001``, ... beside the checkpoint.

    For a model of the hub or of the package it is made below ``outputs`` in the current folder.

    Args:
        cfg: config of the script.
        name: prefix of the folder's name.
        file: file that the script will write.
        ckpt: path of the checkpoint, by default ``cfg.ckpt``.

    Raises:
        UserError: the folder cannot be made, or already holds ``file``.
    """
    beside = folder_beside(ckpt or cfg.ckpt)
    unused = (path for k in count() if not (path := beside / f"{name}_{k:03d}").exists())
    path = Path(cfg.out) if cfg.out is not None else next(unused)
    check_folder(path)
    if (path / file).exists():
        raise UserError(f"{path} already holds {name}, which would be overwritten; name another folder by out=FOLDER")
    return path


def device_for(setting: str) -> torch.device:
    """The device called ``setting``; "auto" is this machine's accelerator if it has one, else the CPU."""
    if setting == "auto":
        here = torch.accelerator.is_available()
        return torch.accelerator.current_accelerator() if here else torch.device("cpu")
    try:
        return torch.empty(0, device=setting).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = first_line(error)
        raise UserError(f"device={setting} is not available here ({reason}); take device=auto or cpu") from error
