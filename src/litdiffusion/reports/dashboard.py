"""Logs an evaluation to W&B."""

from pathlib import Path

from omegaconf import DictConfig
from PIL import Image

from litdiffusion.config.public import masked_command, public
from litdiffusion.measure.distances import Estimate
from litdiffusion.reports.subjects import Subject
from litdiffusion.reports.table import Row
from litdiffusion.runs.dashboards import wandb_logger


def show_report(cfg: DictConfig, folder: Path, rows: list[Row], chosen: list[Subject]) -> None:
    """Logs a new W&B run: table, pictures, the best value of the headline metric as summary, ``cfg`` as config."""
    logger = wandb_logger(folder, f"evaluate {chosen[0].name}", job_type="evaluate")
    with masked_command():
        logger.log_hyperparams(public(cfg))
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = [[_plain(row.get(name)) for name in names] for row in rows]
    logger.log_table("quality", columns=names, data=table)
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            logger.log_image(f"pictures/{path.stem}", [picture.convert("RGB")])
    headline = chosen[0].quality.headline
    values = [row[headline].value for row in rows if headline in row and "calls" in row]
    if values:  # empty if no samples were finite
        logger.experiment.summary[headline] = min(values)
    logger.experiment.finish()


def _plain(cell: object) -> object:
    return cell.value if isinstance(cell, Estimate) else cell
