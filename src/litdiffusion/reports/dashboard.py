"""Logs an evaluation to W&B."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from PIL import Image

from litdiffusion.config.public import masked_command, public
from litdiffusion.measure.distances import Estimate
from litdiffusion.reports.subjects import Subject
from litdiffusion.reports.table import Row
from litdiffusion.runs.record import CHECKPOINTS, read_record
from litdiffusion.runs.wandb_logger import started, wandb_logger


def show_report(cfg: DictConfig, folder: Path, rows: list[Row], chosen: list[Subject]) -> None:
    """Logs a new W&B run: table, pictures, the best value of the headline metric as summary, ``cfg`` as config.

    It is linked to the W&B runs that made the models, see `link_to_runs`.
    """
    logger = wandb_logger(folder, f"evaluate {chosen[0].name}", job_type="evaluate")
    with masked_command():
        link_to_runs(started(logger), [subject.path for subject in chosen])
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


def link_to_runs(run: Any, checkpoints: Sequence[str]) -> None:
    """Names the W&B runs of these checkpoints in the config, as ``evaluates``, and uses their artifacts.

    W&B refuses ``use_artifact`` offline, and an artifact exists only after a run with ``logger.wandb.log_model=true``;
    a line is printed if the server has none.
    """
    import wandb

    found = list(_origins(checkpoints))
    if not found:
        return
    run.config.update({"evaluates": [{"run": run_id, "checkpoint": path.name} for path, run_id, _ in found]})
    for path, run_id, project in found if not run.offline else ():
        alias = "last" if path.name in CHECKPOINTS else "best"
        name = f"{run.entity}/{project or run.project}/model-{run_id}:{alias}"
        try:
            run.use_artifact(name)
        except (wandb.Error, ValueError):
            print(f"W&B has no artifact {name}; the evaluation's config names the run (evaluates)", flush=True)


def _origins(checkpoints: Sequence[str]) -> Iterator[tuple[Path, str, str | None]]:
    """Path, id of the W&B run and its typed project, for each checkpoint in the folder of a run that W&B knows."""
    for path in map(Path, dict.fromkeys(checkpoints)):
        record = read_record(path.parent.parent)
        if record is not None and record.wandb_id is not None:
            typed = ((record.config.get("logger") or {}).get("wandb") or {}).get("project")
            yield path, record.wandb_id, typed


def _plain(cell: object) -> object:
    return cell.value if isinstance(cell, Estimate) else cell
