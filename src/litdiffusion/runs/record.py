"""A run's folder: its record ``run.json``, its lock, and the name of a new folder. Imports no torch."""

import errno
import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from litdiffusion.errors import UserError
from litdiffusion.runs.files import write_atomically

FILE, DATA_FILE, LOCK = "run.json", "data.z", ".lock"
CHECKSUM = "sha256"
"""The entry of a record that tells a damaged digit from a number that was measured."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
Status = Literal["running", "complete", "stopped", "failed", "pruned"]


@dataclass(frozen=True)
class RunRecord:
    """One run, over all of its attempts, as stored in ``run.json``.

    Args:
        status: "running" is also the status of a killed run; "pruned" means that a search ended the run early.
        config: plain values as composed, without ``derived`` and without secrets.
        hardware: for each attempt what its bits depend on: threads, torch, ...
        environment: dotted key -> digest of its text, where ``config`` holds a reference to the environment.
        overrides: overrides on the command line.
        metrics: name -> value, at the end.
        minutes: wall time, summed over attempts, each up to its last save.
        attempts: how often the run was started.
        step: last known step of the optimizer.
        wandb_id: id of the W&B run, or None.
        error: one line, for a failed run.
        failures: how often the run failed, for a job of a sweep.
        data: what identified the data at the last start, see `litdiffusion.data.identity.Identity`; None: unknown.
        measured: what the run keeps of its data, see `litdiffusion.config.keys.MEASURED`.
        sessions: for each attempt when it began, on what machine, and versions of packages, see `session`.
        about: what the run trains: numbers of items and parameters, shape of an item, steps, device.
        summary: the lines that a complete run printed about its pictures and measurements.
        better: whether ``config["metric"]`` is better small ("min") or large ("max"); set at the end.
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
    environment: dict[str, str] = field(default_factory=dict)
    hardware: list[dict[str, str | int]] = field(default_factory=list)
    data: dict[str, Any] | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    sessions: list[dict[str, str]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    summary: list[str] = field(default_factory=list)

    @property
    def starts_afresh(self) -> bool:
        """Whether the run failed before its first save, so that it may start again with any config."""
        return self.status == "failed" and self.step == 0


def read_record(folder: Path) -> RunRecord | None:
    """The record of the run in ``folder``; None if there is none.

    Raises:
        UserError: the file is not a record.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content.pop(CHECKSUM, None) not in (None, _checksum(content)):  # records of earlier versions have none
            raise ValueError("its checksum is wrong, so a part of it is damaged")
        return RunRecord(**{key.name: content[key.name] for key in fields(RunRecord) if key.name in content})
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the record of a run ({error}); {how_to_leave(folder)}") from error


CHECKPOINTS = ("last.ckpt", "previous.ckpt")
"""The files that a run continues from, in this order."""


def how_to_leave(folder: Path) -> str:
    """What to do about a folder whose run cannot be recognised."""
    last = next((path for name in CHECKPOINTS if (path := folder / "checkpoints" / name).is_file()), None)
    return f"take another name or hydra.run.dir{f', and ckpt_path={last} to continue from there' if last else ''}"


def write_record(folder: Path, record: RunRecord) -> None:
    """Replaces the record of the run in ``folder`` atomically."""
    content = asdict(record)
    write_atomically(folder / FILE, json.dumps(content | {CHECKSUM: _checksum(content)}, indent=1).encode())


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_data_rows(folder: Path, content: bytes) -> None:
    """Keeps the names of the data's files beside the record, since the record is written at every save."""
    write_atomically(folder / DATA_FILE, content)


def read_data_rows(folder: Path) -> bytes:
    """What `write_data_rows` wrote; empty if there is none."""
    path = folder / DATA_FILE
    return path.read_bytes() if path.is_file() else b""


def note_progress(folder: Path, step: int, seconds: float) -> None:
    """Updates the run's record, if it has one, after a save: the step, and the ``seconds`` since the last save."""
    record = read_record(folder)
    if record is not None:
        write_record(folder, replace(record, step=step, minutes=record.minutes + seconds / 60))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a run's folder against other processes; the lock ends with the process, even with a killed one.

    A file system without locks (some network file systems) is warned of, and the block runs without a lock.

    Raises:
        UserError: another process holds the lock.
        OSError: the lock's file cannot be opened.
    """
    from filelock import FileLock, Timeout

    # A soft lock would outlive a killed process, and the same command would then be refused.
    lock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder} is being trained by another process; wait for it, or take another name") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"{lock.lock_file}: this file system has no locks ({error.strerror}); two processes that train in this "
            f"folder at once would spoil each other's files; hydra.run.dir=FOLDER takes one on another disk",
            stacklevel=3,
        )
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of a run's folder."""
    try:
        with locked(folder):
            return False
    except UserError:
        return True


def status_of(folder: Path, record: RunRecord) -> str:
    """The recorded status; a "running" run that no process has locked was killed and is "interrupted"."""
    if record.status != "running":
        return record.status
    return "running" if is_locked(folder) else "interrupted"
