"""What happens to a run: signals, a full disk, a changed clock; and to its files while it does not run."""

import errno
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
FULL = ("full disk", "full at fsync")
"""Files cannot grow beyond a size, which the kernel checks; or the error comes only when a file is synced."""
CLOCK = "clock"
FILES = ("damage", "delete", "move")
"""Faults between two attempts, of which the first was killed."""
WEIGHTS = {"SIGKILL": 24, "SIGTERM": 12, "SIGINT": 12, "full disk": 8, "full at fsync": 6, "clock": 8}
WEIGHTS |= {"damage": 12, "delete": 12, "move": 6}
TARGETS = {
    "checkpoints/last.ckpt": 4,
    "checkpoints/previous.ckpt": 2,
    "checkpoints/best_*.ckpt": 2,
    "checkpoints/*.ckpt": 2,
    "run.json": 2,
    "metrics.csv": 2,
    "hparams.yaml": 1,
    "pictures/*": 1,
    ".hydra/*": 1,
    ".lock": 1,
}
"""Files that are damaged or deleted, with weights."""
MANNERS = ("truncate", "flip", "zeros", "empty")


def strike(fault: str, amount: float) -> None:
    """Does to this process what the fault is at this moment; ``amount`` in [0, 1) says how much."""
    if fault in SIGNALS:
        os.kill(os.getpid(), signal.Signals[fault])
    elif fault == "full disk":
        size = int(amount * 3 * 10_000)  # a third of the draws leaves room for small files, none for a checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    elif fault == "full at fsync":
        os.fsync = _no_space
    elif fault == CLOCK:
        change_clock(shift_of(amount))
    elif fault in FILES:
        os.kill(os.getpid(), signal.SIGKILL)


def shift_of(amount: float) -> float:
    """Seconds that the clock jumps: from a year back to a year on, often only by an hour."""
    return (-1 if amount < 0.5 else 1) * (3600.0 if (amount * 4) % 2 < 1 else 3.15e7)


def change_clock(shift: float) -> None:
    """Adds ``shift`` seconds to ``time.time()`` of this process."""
    honest = time.time
    time.time = lambda: honest() + shift


def shift_files(folder: Path, shift: float) -> None:
    """Gives the files the dates that they would have under the changed clock."""
    for path in folder.rglob("*"):
        if path.is_file():
            when = path.stat().st_mtime + shift
            os.utime(path, (when, when))


def harm(folder: Path, fault: str, target: str, manner: str, amount: float) -> list[str]:
    """Damages or deletes the files that fit ``target``; returns their names."""
    hit = [path for path in sorted(folder.glob(target)) if path.is_file()]
    for path in hit:
        path.unlink() if fault == "delete" else _damage(path, manner, amount)
    return [path.name for path in hit]


def move(folder: Path, to: Path) -> None:
    """Moves the run's folder to another parent."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, to)


def _damage(path: Path, manner: str, amount: float) -> None:
    content = bytearray(path.read_bytes())
    place = int(amount * len(content))
    if manner == "flip" and content:
        content[place] ^= 1 << random.Random(amount).randrange(8)
    elif manner == "zeros":
        content[place:] = bytes(len(content) - place)
    else:
        del content[0 if manner == "empty" else place :]
    path.write_bytes(content)


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
