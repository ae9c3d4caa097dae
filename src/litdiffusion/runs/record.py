"""A run's folder: what stands in its ``run.json``, and what the same command does with it. Imports no torch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from litdiffusion.errors import UserError
from litdiffusion.runs.files import write_atomically

FILE, LOCK = "run.json", ".lock"
Status = Literal["running", "complete", "stopped", "failed", "pruned"]


@dataclass(frozen=True)
class RunRecord:
    """One run, over all attempts at it, as ``run.json`` holds it.

    Args:
        status: "running" also after a kill that nothing can catch; "pruned": given up by a search.
        config: resolved and plain, as composed, without ``derived``.
        overrides: of the command line.
        metrics: name -> value, at the end.
        minutes: summed over attempts, up to the last save of each.
        attempts: how often the run was started.
        step: the last that is known.
        wandb_id: of the dashboard's run, or None.
        error: one line, of a failed run.
        failures: how often it failed, as a job of a sweep.
        better: which way ``config["metric"]`` is better; known at the end.
    """

    status: Status
    config: dict[str, Any]
    overrides: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    minutes: float = 0.0
    attempts: int = 0
    step: int = 0
    wandb_id: str | None = None
    error: str | None = None
    failures: int = 0
    better: Literal["min", "max"] = "min"


def read_record(folder: Path) -> RunRecord | None:
    """The record of the run in ``folder``; None where there is none.

    Raises:
        UserError: a file that is not a record.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        return RunRecord(**{key.name: content[key.name] for key in fields(RunRecord) if key.name in content})
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not the record of a run ({error}); move it away, or take another name") from error


def write_record(folder: Path, record: RunRecord) -> None:
    """Replaces the record of the run in ``folder`` as a whole."""
    write_atomically(folder / FILE, json.dumps(asdict(record), indent=1).encode())


def note_progress(folder: Path, step: int, seconds: float) -> None:
    """Notes a save in the run's record, where the folder has one: the step, and the time since the last note."""
    record = read_record(folder)
    if record is not None:
        write_record(folder, replace(record, step=step, minutes=record.minutes + seconds / 60))


def fresh_folder(folder: Path) -> Path:
    """``folder``, or where that holds a run already the first of ``folder_2``, ``folder_3``, ... that does not."""
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}_{number}")
    return candidate


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of a run's folder; the lock ends with the process, however that ends.

    Raises:
        UserError: another process is at work there.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"{folder} is being trained by another process; wait for it, or take another name") from error


def is_locked(folder: Path) -> bool:
    """Whether another process is at work in a run's folder."""
    try:
        with locked(folder):
            return False
    except UserError:
        return True
