"""One job of a sweep: its failure is recorded in its own folder and does not stop the other jobs."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.launched import rank
from litdiffusion.config.secrets import masked, masked_text
from litdiffusion.errors import Pruned, UserError, first_line
from litdiffusion.runs.files import write_atomically
from litdiffusion.runs.record import RunRecord, is_locked, read_record, write_record
from litdiffusion.sweeps.alike import check_alike

if TYPE_CHECKING:
    from litdiffusion.build import Run

ERROR_FILE = "error.txt"
Train = Callable[[DictConfig, "Run"], float | None]


def run_job(cfg: DictConfig, run: "Run", train: Train) -> float | None:
    """Trains or resumes the job by ``train``, or prints why it is skipped; returns its metric or None.

    The next command tries a failed job again, at most ``cfg.retries`` times. A pruned job is skipped, and so is a job
    that another process is training.

    Raises:
        UserError: the folder holds a job of another config, or the job is not like the others of the sweep.
    """
    from litdiffusion.sweeps.search import pruning_callbacks

    _check(cfg)
    before = read_record(run.dir)
    if before is not None and (reason := _reason_to_skip(before, cfg.retries)):
        print(f"job {run.name}: {reason}", flush=True)
        return None
    if before is None or before.starts_afresh:
        check_alike(cfg, run.dir, run.overrides)
    try:
        return train(cfg, replace(run, extra_callbacks=pruning_callbacks(cfg, run.dir)))
    except Exception as error:  # no exception of a job may stop the other jobs
        if rank() == 0:
            _record_failure(cfg, run, before, error)
        return None


def _reason_to_skip(record: RunRecord, retries: int) -> str:
    """Why a job is not tried again; empty if it is tried."""
    if record.status == "pruned":
        return "pruned by the search in an earlier command"
    if record.status == "failed" and record.failures > retries:
        return f"failed {record.failures} times and is not tried again (retries={retries}): {record.error}"
    return ""


def _check(cfg: DictConfig) -> None:
    if not isinstance(cfg.retries, int) or isinstance(cfg.retries, bool) or cfg.retries < 0:
        raise UserError(f"retries must be a whole number of at least 0, got {cfg.retries!r}")
    if not cfg.resume:
        raise UserError(
            "resume=false would make a second folder for each job, which a sweep does not read; take another sweep=NAME"
        )


def _record_failure(cfg: DictConfig, run: "Run", before: RunRecord | None, error: Exception) -> None:
    """Records how the job ended; re-raises an error that concerns the folder instead of the job."""
    run.dir.mkdir(parents=True, exist_ok=True)
    if is_locked(run.dir):
        print(f"job {run.name}: {masked_text(first_line(error))}", file=sys.stderr, flush=True)
        return
    record, name = read_record(run.dir), run.name
    refused = record is not None and record == before and record.status != "failed"
    if refused and isinstance(error, UserError):
        raise error
    base = record or RunRecord("running", _plain(cfg), overrides=list(run.overrides), attempts=1)
    ended = _ended_record(base, error, begun=record != before)
    write_record(run.dir, ended)
    if ended.status == "pruned":
        print(f"job {name}: {error}", flush=True)
        return
    write_atomically(run.dir / ERROR_FILE, masked_text("".join(traceback.format_exception(error))).encode())
    print(f"job {name} failed: {ended.error} (traceback in {run.dir / ERROR_FILE})", file=sys.stderr, flush=True)


def _ended_record(record: RunRecord, error: Exception, begun: bool) -> RunRecord:
    if isinstance(error, Pruned):
        return replace(record, status="pruned", error=None, metrics={**record.metrics, error.metric: error.value})
    # The attempt recorded a shorter message, without the advice how to continue.
    line = record.error if begun and record.error else masked_text(first_line(error))
    return replace(record, status="failed", error=line, failures=record.failures + 1)


def _plain(cfg: DictConfig) -> dict:
    """The composed config without ``derived``, unresolved because the run may have ended before its values exist."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    return masked({key: value for key, value in plain.items() if key != "derived"})
