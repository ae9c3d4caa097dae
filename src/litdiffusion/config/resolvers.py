"""Resolvers for ``${name:...}`` in the yamls. Hydra imports this module at its start. Imports no torch."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.environment import env
from litdiffusion.config.job_names import check_folder_name, job_folder, job_subdir, sweep_folder
from litdiffusion.config.launched import agreed_folder, rank
from litdiffusion.runs.files import fresh
from litdiffusion.runs.record import FILE as RECORD

_FOLDERS: dict[tuple[str | None, bool, str], str] = {}


def run_folder(name: str | None, resume: bool, unnamed: str) -> str:
    """The run's folder: ``outputs/NAME``, or ``outputs/NAME_2`` with ``resume=false``; ``unnamed`` without a name."""
    if name is not None:
        check_folder_name("name", name)
    # Cached because Hydra calls this several times, also after the folder was made.
    key = name, resume, unnamed
    if key not in _FOLDERS:
        folder = Path(unnamed) if name is None else Path("outputs") / str(name)
        folder = folder if resume or name is None else fresh(folder)
        _FOLDERS[key] = agreed_folder(str(folder), named=name is not None)
    return _FOLDERS[key]


def run_subdir(folder: str | None) -> str | None:
    """The subfolder of Hydra's own files, a new one for each attempt; ``folder`` is None outside a job.

    Of several processes the first one writes these files.
    """
    if rank() > 0:
        return None
    if folder is None or not (Path(folder) / RECORD).exists():
        return ".hydra"
    count = sum(1 for path in Path(folder, ".hydra").glob("attempt_*"))
    return f".hydra/attempt_{count + 2}"


def forget_folders() -> None:
    """Empties the cache, for a second command in the same process."""
    _FOLDERS.clear()


def fact(name: str, *, _root_: DictConfig) -> Any:
    """A value of ``derived``, computed on access if no run has filled it in, e.g. in a notebook."""
    from litdiffusion.config.derived import look_up

    return look_up(name, _root_)


# Cached like ${now:}, so that jobs in other processes get the process id of the command.
OmegaConf.register_new_resolver("pid", os.getpid, use_cache=True, replace=True)
OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("run_subdir", run_subdir, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
OmegaConf.register_new_resolver("job_subdir", job_subdir, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
OmegaConf.register_new_resolver("fact", fact, replace=True)
OmegaConf.register_new_resolver("oc.env", env, replace=True)
