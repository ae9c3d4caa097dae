"""What dashboards show of a run: its config, numbers, pictures, animations and samples, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from torch import Tensor

from litdiffusion.runs.record import read_record, write_record
from litdiffusion.runs.wandb_logger import STEP, RunLogger, started, wandb_logger
from litdiffusion.runs.wandb_mode import forget_empty_mode

__all__ = ["describe_run", "finish", "log_animation", "log_metrics", "log_picture", "log_samples", "wandb_logger"]

SECTIONS = ("train", "val", "time", "quality", "likelihood", "samples", "pictures", "animations")
EXIT_CODES = {"complete": 0, "pruned": 0, "failed": 1, "stopped": 255}
"""W&B's exit code for each status. W&B shows 255 as "killed", and a run that stops reporting as "crashed"."""
ROWS_PER_ATTEMPT = 10_000_000
"""More rows than an attempt logs: W&B numbers its rows, and the numbers must rise from one attempt to the next."""


def describe_run(trainer: L.Trainer, config: dict[str, Any]) -> None:
    """Passes the config to every logger, and the chart axes to W&B, before the first step.

    Raises:
        UserError: W&B refuses to begin the run.
    """
    forget_empty_mode()  # also for Lightning's own WandbLogger
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            started(logger)
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


def log_picture(trainer: L.Trainer, name: str, picture: Image.Image) -> None:
    """Sends a picture to every active logger that accepts pictures."""
    step = log_step(trainer)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"pictures/{name}", [picture], step=step)
        elif hasattr(logger.experiment, "add_image"):
            logger.experiment.add_image(f"pictures/{name}", np.asarray(picture), step, dataformats="HWC")


def log_animation(trainer: L.Trainer, name: str, path: Path) -> None:
    """Sends the GIF at ``path`` to W&B, as a video, and to TensorBoard, which plays a GIF among its images."""
    step = log_step(trainer)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_video(f"animations/{name}", [str(path)], step=step, format=["gif"])
        elif isinstance(logger, TensorBoardLogger):
            _add_gif(logger, f"animations/{name}", path, step)


def log_samples(trainer: L.Trainer, pixels: Tensor, classes: Sequence[str]) -> None:
    """Sends images (n, 3, H, W) of bytes to W&B as a table, with their classes (n) if there are any."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            import wandb

            images = [wandb.Image(image) for image in pixels.permute(0, 2, 3, 1).numpy()]
            cells = {"index": range(len(images)), "image": images} | ({"class": classes} if classes else {})
            rows = [list(row) for row in zip(*cells.values(), strict=True)]
            logger.log_table("pictures/samples_table", columns=list(cells), data=rows, step=log_step(trainer))


def alert(trainer: L.Trainer, title: str, text: str) -> None:
    """Sends an alert to W&B, which passes it on by mail or Slack as the user has set."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.alert(title, text, level="ERROR")


def finish(trainer: L.Trainer, status: str = "complete", metric: str | None = None) -> None:
    """Reports the end of a run, with the value of ``metric`` as TensorBoard's ``hp_metric``.

    The W&B run ends here, because each job of a multirun is a run of its own; Lightning ends the other loggers.
    """
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, WandbLogger):
            if isinstance(logger, RunLogger):
                logger.summarise_attempts()
                if status == "complete":
                    logger.log_last_checkpoint()
            logger.experiment.summary["status"] = status
            logger.experiment.finish(exit_code=EXIT_CODES[status])
        elif isinstance(logger, TensorBoardLogger) and metric in trainer.callback_metrics:
            logger.log_metrics({"hp_metric": float(trainer.callback_metrics[metric])}, step=log_step(trainer))
            logger.finalize(status)


def _add_gif(logger: TensorBoardLogger, tag: str, path: Path, step: int) -> None:
    """Writes the file as it is: TensorBoard's own ``add_video`` makes such a GIF from frames, and needs moviepy."""
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary
    except ImportError:  # Lightning takes tensorboardX in its place
        from tensorboardX.proto.summary_pb2 import Summary

    with Image.open(path) as first:
        shown = Summary.Image(height=first.height, width=first.width, colorspace=3)
    shown.encoded_image_string = path.read_bytes()
    logger.experiment._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=shown)]), step)


@rank_zero_only
def _begin_attempt(logger: WandbLogger) -> None:
    """Writes the W&B id into the run's record, and the number of the attempt to W&B.

    The W&B status becomes "running", and stays so if the run is killed.
    """
    run = logger.experiment
    run.summary["status"] = "running"
    record = read_record(logger.run_dir) if isinstance(logger, RunLogger) else None
    if record is None:
        return
    write_record(logger.run_dir, replace(record, wandb_id=run.id))
    row_number = {"step": ROWS_PER_ATTEMPT * (record.attempts - 1)} if run.offline and record.attempts > 1 else {}
    run.log({"attempt": record.attempts}, **row_number)


@rank_zero_only
def _declare_axes(logger: WandbLogger) -> None:
    logger.experiment.define_metric(STEP)
    for section in SECTIONS:
        logger.experiment.define_metric(f"{section}/*", step_metric=STEP)
