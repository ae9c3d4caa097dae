"""The logger of a W&B run: what was typed comes first, then W&B's own environment variables, then the defaults here."""

import inspect
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from litdiffusion.errors import UserError, first_line, nearest
from litdiffusion.runs.metric_goals import best_values, goal
from litdiffusion.runs.record import CHECKPOINTS, read_record
from litdiffusion.runs.rows import rows_of
from litdiffusion.runs.wandb_mode import chosen_mode

STEP = "trainer/global_step"
PROJECT = "litdiffusion"
SECONDS = 20
"""How long W&B may take to begin a run; its own 90 s are long for a server that does not answer."""
SETTINGS = {"name": "run_name", "id": "run_id", "group": "run_group", "tags": "run_tags", "notes": "run_notes"}
"""Arguments of ``wandb.init`` that W&B's settings call otherwise."""


class RunLogger(WandbLogger):
    """Lightning's logger, with the best value of each metric in W&B's summary and the last checkpoint as an artifact.

    W&B's summary holds ``val/loss.min`` or ``quality/precision.max`` for numbers with a known `goal`, and the last
    value of the others. Lightning's ``log_model`` uploads what ``ModelCheckpoint`` keeps, the best one as ``best``;
    here ``last.ckpt`` follows as ``last`` when the run is complete.

    Args:
        run_dir: the run's folder.
        rising: names of the metrics' numbers for which larger is better.
        arguments: those of Lightning's logger.
    """

    def __init__(self, run_dir: Path, rising: Collection[str] = (), **arguments: Any):
        super().__init__(**arguments)
        self.run_dir, self.rising = run_dir, rising
        self._declared: set[str] = set()
        self._wandb_init.pop("anonymous", None)  # because W&B warns of this argument, which Lightning always passes

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        for name in metrics.keys() - self._declared:
            self._declared.add(name)
            if (best := goal(name, self.rising)) is not None:
                # By its full name: W&B 0.31 ignores the summary of a pattern such as val/*.
                self.experiment.define_metric(self._full(name), step_metric=STEP, summary=best)
        super().log_metrics(metrics, step)

    @rank_zero_only
    def summarise_attempts(self) -> None:
        """Takes the best values over all attempts, since W&B begins anew with each."""
        record = read_record(self.run_dir)
        if record is not None and record.attempts > 1:
            best = best_values(rows_of(self.run_dir), self.rising)
            self.experiment.summary.update({self._full(name): {side: value} for name, (side, value) in best.items()})

    def _full(self, name: str) -> str:
        return f"{self._prefix}{self.LOGGER_JOIN_CHAR}{name}" if self._prefix else name

    @rank_zero_only
    def log_last_checkpoint(self) -> None:
        """Logs ``last.ckpt`` as the artifact's version ``last``, if ``log_model`` asks for models."""
        path = self.run_dir / "checkpoints" / CHECKPOINTS[0]
        if not self._log_model or not path.is_file():
            return
        import wandb

        name = self._checkpoint_name or f"model-{self.experiment.id}"
        artifact = wandb.Artifact(name, type="model", metadata={"original_filename": path.name})
        artifact.add_file(str(path), name="model.ckpt", policy=self.add_file_policy)
        self.experiment.log_artifact(artifact, aliases=["latest", "last"])


def wandb_logger(
    run_dir: Path,
    run_name: str,
    run_group: str | None = None,
    run_tags: Sequence[str] = (),
    rising: Collection[str] = (),
    mode: str = "auto",
    offline: bool = False,
    project: str | None = None,
    name: str | None = None,
    id: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] | None = None,
    save_dir: str | None = None,
    settings: Any = None,
    **arguments: Any,
) -> RunLogger:
    """The logger of a W&B run that never prompts: of Lightning's ``WandbLogger``, with all of its arguments.

    What is null here is taken from W&B's environment variables (``WANDB_PROJECT``, ``WANDB_NAME``, ``WANDB_RUN_GROUP``,
    ``WANDB_JOB_TYPE``, ``WANDB_TAGS``, and those that ``wandb.init`` reads itself), then from the run. ``mode`` is that
    of ``wandb.init``, or auto, see `chosen_mode`. An existing W&B run of ``run_dir`` is continued; offline, its
    attempts are files with one id, which ``wandb sync`` joins.

    Args:
        run_dir, run_name, run_group, run_tags: the run's folder, and what W&B shows of it by default.
        rising: names of the metrics' numbers for which larger is better.
        mode, offline, project, name, id, group, job_type, tags, save_dir, settings: those of ``WandbLogger`` and
            ``wandb.init``; ``tags`` are in addition to ``run_tags``.
        arguments: all others.

    Raises:
        UserError: an unknown argument or mode, or a value that W&B refuses, such as ``project=my/project``.
    """
    _check_names(arguments)
    environment = os.environ.get
    given = {
        "project": project or environment("WANDB_PROJECT") or PROJECT,
        "name": name or (None if environment("WANDB_NAME") else run_name),
        "id": id or arguments.pop("version", None) or _wandb_id(run_dir),
        "group": group or (None if environment("WANDB_RUN_GROUP") else run_group),
        "job_type": job_type or (None if environment("WANDB_JOB_TYPE") else "train"),
        "tags": list(dict.fromkeys([*run_tags, *(tags or ())])) or None,
        **{key: value for key, value in arguments.items() if value is not None},
    }
    _check_values(given)
    mode = chosen_mode(mode, offline)
    save_dir = str(save_dir or given.pop("dir", None) or run_dir)
    if mode == "offline":
        _print_once(f"W&B logs offline; upload with: wandb sync {save_dir}/wandb/offline-run-*")
    if not environment("WANDB_INIT_TIMEOUT"):
        settings = {"init_timeout": SECONDS, **(settings or {})} if isinstance(settings, dict | None) else settings
    return RunLogger(run_dir, rising, save_dir=save_dir, mode=mode, settings=settings, **given)


def started(logger: WandbLogger) -> Any:
    """The W&B run of a logger, which begins here.

    Raises:
        UserError: W&B refuses to begin it; the message is W&B's.
    """
    import wandb

    try:
        return logger.experiment
    except (wandb.Error, TypeError, ValueError) as error:
        raise UserError(f"logger.wandb: {_in_words(error)}; logger.wandb.mode=offline needs no server") from error


def _wandb_id(run_dir: Path) -> str:
    """Id of the W&B run: from the run's record, else from a W&B agent, else a new one."""
    record = read_record(run_dir)
    recorded_id = record.wandb_id if record is not None else None
    return recorded_id or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


def _check_names(arguments: Mapping[str, Any]) -> None:
    import wandb

    known = {*inspect.signature(WandbLogger.__init__).parameters, *inspect.signature(wandb.init).parameters}
    known -= {"self", "kwargs"}
    for name in arguments.keys() - known:
        raise UserError(
            f"logger.wandb.{name} is an argument of neither WandbLogger nor wandb.init{nearest(name, sorted(known))}"
        )


def _check_values(given: Mapping[str, Any]) -> None:
    import wandb

    known = wandb.Settings.model_fields.keys()
    values = {SETTINGS.get(key, key): value for key, value in given.items() if value is not None}
    try:
        wandb.Settings(**{key: value for key, value in values.items() if key in known})
    except (wandb.Error, ValueError) as error:
        raise UserError(f"logger.wandb: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    """W&B's message on one line; of several refused settings, the first one."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
    return first_line(error)


@rank_zero_only
def _print_once(line: str) -> None:
    print(line, flush=True)
