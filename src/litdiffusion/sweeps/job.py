"""One job of a sweep: whatever happens in it is recorded in its own folder and does not reach the others."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from litdiffusion.errors import Pruned, UserError
from litdiffusion.runs.record import RunRecord, is_locked, read_record, write_record

if TYPE_CHECKING:
    from litdiffusion.build import Run

ERROR_FILE = "error.txt"
Train = Callable[[DictConfig, "Run"], float | None]


def run_job(cfg: DictConfig, run: "Run", train: Train) -> float | None:
    """Trains the job by ``train``, goes on with it, or says why there is nothing to do; returns its metric or None.

    A failed job is tried again by the next command, ``cfg.retries`` times. A pruned one is done. One that another
    process is at work on is left to it.

    Raises:
        UserError: a folder that holds a job of another config.
    """
    from litdiffusion.sweeps.search import pruning_callbacks

    _check(cfg)
    before = read_record(run.dir)
    if before is not None and (reason := _reason_to_skip(before, cfg.retries)):
        print(f"job {run.name}: {reason}", flush=True)
        return None
    try:
        return train(cfg, replace(run, extra_callbacks=pruning_callbacks(cfg, run.dir)))
    except Exception as error:  # a job must not take the others with it, whatever its parts raise
        _record_failure(cfg, run, before, error)
        return None


def _reason_to_skip(record: RunRecord, retries: int) -> str:
    """Why a job is not tried again; empty where it is."""
    if record.status == "pruned":
        return "given up by the search, at an earlier command"
    if record.status == "failed" and record.failures > retries:
        return f"failed {record.failures} times and is not tried again (retries={retries}): {record.error}"
    return ""


def _check(cfg: DictConfig) -> None:
    if not isinstance(cfg.retries, int) or isinstance(cfg.retries, bool) or cfg.retries < 0:
        raise UserError(f"retries must be a whole number of at least 0, got {cfg.retries!r}")
    if not cfg.resume:
        raise UserError(
            "resume=false makes a second folder beside each, which a sweep does not count; take another sweep=NAME"
        )


def _record_failure(cfg: DictConfig, run: "Run", before: RunRecord | None, error: Exception) -> None:
    """Notes how the job ended; raises an error that is about the folder and not about the job."""
    run.dir.mkdir(parents=True, exist_ok=True)
    if is_locked(run.dir):
        print(f"job {run.name}: {one_line(error)}", file=sys.stderr, flush=True)
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
    (run.dir / ERROR_FILE).write_text("".join(traceback.format_exception(error)))
    print(f"job {name} failed: {ended.error} (the whole in {run.dir / ERROR_FILE})", file=sys.stderr, flush=True)


def _ended_record(record: RunRecord, error: Exception, begun: bool) -> RunRecord:
    if isinstance(error, Pruned):
        return replace(record, status="pruned", error=None, metrics={**record.metrics, error.metric: error.value})
    # The attempt itself noted a shorter line than that which tells how to go on.
    line = record.error if begun and record.error else one_line(error)
    return replace(record, status="failed", error=line, failures=record.failures + 1)


def one_line(error: BaseException) -> str:
    """The error as a table shows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _plain(cfg: DictConfig) -> dict:
    """As composed; unresolved where a value refers to one that the run never got to."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    return {key: value for key, value in plain.items() if key != "derived"}
