"""What the yamls compute by ``${name:...}``. Importing this registers it, as Hydra does at its start. No torch."""

import os
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.job_names import job_folder, job_subdir, sweep_folder
from litdiffusion.errors import UserError
from litdiffusion.runs.record import FILE as RECORD
from litdiffusion.runs.record import fresh_folder

_FOLDERS: dict[str, Path] = {}


def run_folder(name: str | None, resume: bool, unnamed: str) -> str:
    """The run's folder: ``outputs/NAME``, with ``resume=false`` a new one beside it; without a name ``unnamed``."""
    if name is None:
        return unnamed
    if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", str(name)):
        raise UserError(f"name={name!r} must consist of letters, digits and . + - _, for it names a folder of outputs")
    folder = Path("outputs") / str(name)
    # Hydra asks more than once, also when the folder is there already.
    return str(folder if resume else _FOLDERS.setdefault(str(name), fresh_folder(folder)))


def run_subdir(folder: str | None) -> str:
    """Hydra's own files: each attempt at the run in ``folder`` has its own place. Without a job ``folder`` is None."""
    if folder is None or not (Path(folder) / RECORD).exists():
        return ".hydra"
    count = sum(1 for path in Path(folder, ".hydra").glob("attempt_*"))
    return f".hydra/attempt_{count + 2}"


def forget_folders() -> None:
    """Before another command in the same process."""
    _FOLDERS.clear()


def fact(name: str, *, _root_: DictConfig) -> Any:
    """A value of ``derived``, computed when it is read before a run has filled it in (in a notebook, say)."""
    from litdiffusion.config.derived import look_up

    return look_up(name, _root_)


# Cached as ${now:} is: the process id is that of the command, also in the jobs that it starts elsewhere.
OmegaConf.register_new_resolver("pid", os.getpid, use_cache=True, replace=True)
OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("run_subdir", run_subdir, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
OmegaConf.register_new_resolver("job_subdir", job_subdir, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
OmegaConf.register_new_resolver("fact", fact, replace=True)
