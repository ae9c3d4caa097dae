"""Weights & Biases runs that never prompt, and pictures for every logger that accepts them."""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL.Image import Image
from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.runs.record import read_record, write_record

MODES = ("auto", "online", "offline", "disabled")
STEP = "trainer/global_step"
SECTIONS = ("train", "val", "time", "quality", "likelihood", "samples", "pictures")
EXIT_CODES = {"complete": 0, "pruned": 0, "failed": 1, "stopped": 255}
"""W&B's exit code for each status. W&B shows 255 as "killed", and a run that stops reporting as "crashed"."""
ROWS_PER_ATTEMPT = 10_000_000
"""More rows than an attempt logs: W&B numbers its rows, and the numbers must rise from one attempt to the next."""


def wandb_logger(
    run_dir: Path,
    run_name: str,
    group: str | None = None,
    project: str = "litdiffusion",
    mode: str = "auto",
    job_type: str = "train",
    tags: Sequence[str] = (),
) -> WandbLogger:
    """The logger of a W&B run in ``run_dir`` that never prompts and never blocks.

    "auto" and "online" go online if the server answers within two seconds and an API key is known. Otherwise the run is
    logged offline, and the upload command is printed. The environment variable ``WANDB_MODE`` replaces "auto". The jobs
    of a multirun share ``group``. An existing W&B run of ``run_dir`` is continued; offline, its attempts are files with
    one id, which ``wandb sync`` joins.
    """
    if mode not in MODES:
        raise UserError(f"logger.wandb.mode must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "online"
    if mode == "online" and not _reachable():
        mode = "offline"
    if mode == "offline":
        _print_once(f"W&B logs offline; upload with: wandb sync {run_dir}/wandb/offline-run-*")
    import wandb

    logger = WandbLogger(
        save_dir=str(run_dir),
        project=project,
        name=run_name,
        id=_wandb_id(run_dir),
        group=group,
        job_type=job_type,
        tags=list(tags) or None,
        mode=mode,
        log_model=False,
        settings=wandb.Settings(init_timeout=20),
    )
    logger._wandb_init.pop("anonymous", None)  # because W&B warns of this argument, which Lightning always passes
    return logger


def describe_run(trainer: L.Trainer, config: dict[str, Any]) -> None:
    """Passes the config to every logger, and the chart axes to W&B, before the first step."""
    for logger in trainer.loggers:
        logger.log_hyperparams(config)
        if isinstance(logger, WandbLogger):
            _declare_axes(logger)
            _begin_attempt(logger)


def log_step(trainer: L.Trainer) -> int:
    """Index of the last step on the log's axis: Lightning counts from 0, so it is k - 1 after k steps."""
    return max(0, trainer.global_step - 1)


def log_metrics(trainer: L.Trainer, values: Mapping[str, float | Tensor]) -> None:
    """Writes one row of metrics at the last step to every logger, on the axis of Lightning's ``self.log``."""
    row = {name: float(value) for name, value in values.items()} | {"epoch": trainer.current_epoch}
    for logger in trainer.loggers:
        logger.log_metrics(row, step=log_step(trainer))
        logger.save()


def log_picture(trainer: L.Trainer, name: str, picture: Image) -> None:
    """Sends a picture to every active logger that accepts pictures."""
    step = log_step(trainer)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"pictures/{name}", [picture], step=step)
        elif hasattr(logger.experiment, "add_image"):
            logger.experiment.add_image(f"pictures/{name}", np.asarray(picture), step, dataformats="HWC")


def finish(trainer: L.Trainer, status: str = "complete") -> None:
    """Ends the W&B run, because each job of a multirun is a run of its own; Lightning ends the other loggers."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.summary["status"] = status
            logger.experiment.finish(exit_code=EXIT_CODES[status])


def _wandb_id(run_dir: Path) -> str:
    """Id of the W&B run: from the run's record, else from a W&B agent, else a new one."""
    record = read_record(run_dir)
    recorded_id = record.wandb_id if record is not None else None
    return recorded_id or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


@rank_zero_only
def _begin_attempt(logger: WandbLogger) -> None:
    """Writes the W&B id into the run's record, and the number of the attempt to W&B.

    The W&B status becomes "running", and stays so if the run is killed.
    """
    folder, run = Path(logger.save_dir), logger.experiment
    record = read_record(folder)
    if record is None:
        return
    write_record(folder, replace(record, wandb_id=run.id))
    run.summary["status"] = "running"
    row_number = {"step": ROWS_PER_ATTEMPT * (record.attempts - 1)} if run.offline and record.attempts > 1 else {}
    run.log({"attempt": record.attempts}, **row_number)


@rank_zero_only
def _declare_axes(logger: WandbLogger) -> None:
    logger.experiment.define_metric(STEP)
    for section in SECTIONS:
        logger.experiment.define_metric(f"{section}/*", step_metric=STEP)


@rank_zero_only
def _print_once(line: str) -> None:
    print(line, flush=True)


def _reachable() -> bool:
    """Whether W&B's server accepts a connection within two seconds and an API key for it is known."""
    import wandb

    url = urlparse(wandb.Settings().base_url)
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname, port), timeout=2).close()
    except OSError:
        return False
    return _has_key()


def _has_key() -> bool:
    import wandb

    return bool(wandb.login(prompt=False))
