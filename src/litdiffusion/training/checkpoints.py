"""Reads checkpoints safely, with a one-line error for a missing, damaged or foreign file."""

import os
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litdiffusion.errors import UserError, first_line
from litdiffusion.runs.files import is_sealed, seal_fits, set_aside
from litdiffusion.runs.record import CHECKPOINTS
from litdiffusion.training.archives import check_archive, check_content, damage_message

LAST, PREVIOUS = CHECKPOINTS
REQUEUED = "hpc_ckpt_*.ckpt"
"""Names of the checkpoints that Lightning writes into a run's folder when Slurm is about to end its job."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file of this project, see `read_file`.

    Raises:
        UserError: a missing, unreadable, damaged or foreign file.
    """
    content = read_file(path)
    if not isinstance(content, dict) or "litdiffusion" not in content:
        raise UserError(f"{path} was not written by litdiffusion; give a .ckpt file of one of its runs")
    state = content.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path} holds no weights by their names; give another .ckpt file of its run")
    return content


def is_autoencoder(content: dict[str, Any]) -> bool:
    """Whether the content of a checkpoint is that of an `AutoencoderModule`."""
    return any(name.startswith("autoencoder.") for name in content["state_dict"])


def read_file(path: str | Path) -> Any:
    """The content of a file, loaded with ``weights_only=True`` onto the CPU; a file with a checksum must be intact.

    Raises:
        UserError: a missing, unreadable or damaged file.
    """
    path = Path(path)
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"no checkpoint at {path}"
        raise UserError(f"{what}; give the path of a .ckpt file, as printed at the end of a run")
    if is_sealed(path) and not seal_fits(path):
        raise UserError(damage_message(path, "its checksum does not fit"))
    check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = first_line(error)[:120]
        raise UserError(damage_message(path, reason)) from error
    if isinstance(content, dict) and content.get("sealed") and not is_sealed(path):
        raise UserError(damage_message(path, "its checksum is missing"))
    check_content(content, path)
    return content


def is_intact(path: Path) -> bool:
    """Whether the file is there, and its checksum fits if it has one."""
    return path.is_file() and (seal_fits(path) or not is_sealed(path)) and zipfile.is_zipfile(path)


def requeue_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints in a run's folder that Lightning wrote for Slurm, the newest first."""
    return sorted(run_dir.glob(REQUEUED), key=lambda path: path.stat().st_mtime, reverse=True)


def newest_checkpoint(run_dir: Path, usable: Callable[[dict[str, Any]], bool]) -> tuple[Path | None, list[str]]:
    """The checkpoint that a run continues from: the newest intact one whose content is ``usable``, or None.

    One that Lightning wrote for Slurm counts if it has more steps than all others; a line says if it has not. Also
    returns one line for each damaged file. Such a file is renamed, so that the next save does not move it over
    ``previous.ckpt``.
    """
    folder = run_dir / "checkpoints"
    best = sorted(folder.glob("best_*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    path, step, lines = _first_usable((folder / LAST, folder / PREVIOUS, *best), usable)
    other, other_step, more = _first_usable(requeue_checkpoints(run_dir), usable)
    if other is not None and other_step > step:
        return other, lines + more
    if other is not None and other_step < step:
        more.append(f"{other} (step {other_step}) is older than {path} (step {step}), which is used")
    return path, lines + more


def _first_usable(
    paths: Iterable[Path], usable: Callable[[dict[str, Any]], bool]
) -> tuple[Path | None, int, list[str]]:
    """The first intact and usable one of ``paths`` and its step, or (None, -1); one line for each damaged file."""
    lines = []
    for path in paths:
        if not os.path.lexists(path):
            continue
        try:
            content = read_checkpoint(path)
        except UserError as error:
            reason = str(error).partition(";")[0]
            # Another name, because Lightning takes every file with this word in its name for a checkpoint.
            kept = set_aside(path, path.name.replace("hpc_ckpt", "requeued"))
            lines.append(f"{reason}; renamed to {kept.name}, an older one is used")
            continue
        if usable(content):
            return path, content["global_step"], lines
    return None, -1, lines
