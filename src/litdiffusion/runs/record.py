"""A run's folder: what stands in its ``run.json``, and what the same command does with it. Imports no torch."""

import fcntl
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
Action = Literal["fresh", "resume", "complete"]

LENGTH = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time")
PICTURES = ("trajectory", "forward_process", "field", "langevin_path", "final_samples", "progress_bar")
MAY_DIFFER = (
    *LENGTH,
    *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "plugins", "default_root_dir")),
    *(f"trainer.{key}" for key in ("enable_progress_bar", "enable_model_summary", "profiler", "logger", "callbacks")),
    *(f"callbacks.{name}" for name in PICTURES),
    *("data.root", "data.num_workers", "data.memory_limit_gb", "threads", "logger", "tags", "print_config"),
    *("name", "resume", "save_every", "callbacks.last.every_n_steps", "callbacks.last.minutes"),
    *("ckpt_path", "expected", "skip_nonfinite", "trusted", "dry_run", "sweep", "retries", "derived"),
)
"""Settings, with all below them, that may change between two attempts at one run: its length, hardware and pictures."""


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


def action_for(folder: Path, config: dict[str, Any]) -> Action:
    """What a command with this ``config`` does in ``folder``: start, go on, or nothing since all is done.

    A run that failed before its first step is started again, with whatever config. A complete one goes on where the
    new config makes it longer.

    Raises:
        UserError: a run of another config, with a line for each difference.
    """
    record = read_record(folder)
    if record is None or (record.status == "failed" and record.step == 0):
        return "fresh"
    if lines := changes(record.config, config):
        raise UserError(
            f"{folder} holds a run of another config:\n"
            + "".join(f"  {line}\n" for line in lines)
            + "take the same overrides to go on with it, resume=false to start afresh beside it, or another name"
        )
    return "complete" if record.status == "complete" and not longer(record, config) else "resume"


def changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """``key: value then -> value now`` for every setting that differs and may not, see `MAY_DIFFER`."""
    lines = ((where, f"{where}: {_short(old)} -> {_short(new)}") for where, old, new in differences(then, now))
    return [line for where, line in lines if not any(f"{where}.".startswith(f"{key}.") for key in MAY_DIFFER)]


def differences(then: Any, now: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value then, value now) wherever two plain configs differ.

    A setting newer than the record, and off, changes nothing.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            if key in then or now[key]:
                yield from differences(then.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif then != now:
        yield where, then, now


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is being trained by another process; wait for it, or take another name"
            ) from error
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process is at work in a run's folder."""
    try:
        with locked(folder):
            return False
    except UserError:
        return True


def longer(record: RunRecord, config: dict[str, Any]) -> bool:
    """Whether ``config`` asks for more steps, passes or time than the run of ``record`` had."""
    then, now = (plain.get("trainer", {}) for plain in (record.config, config))
    lengths = [key.partition(".")[2] for key in LENGTH]
    if all(then.get(key) == now.get(key) for key in lengths):
        return False
    steps = now.get("max_steps")
    return now.get("max_epochs") is not None or steps == -1 or not isinstance(steps, int) or steps > record.step
