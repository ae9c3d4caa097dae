"""What is left of a run at its end, compared bit for bit with the undisturbed run."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from litdiffusion.training.checkpoints import read_checkpoint

UNCOMPARED = (".hydra", ".lock", "train.log", "report.html")
"""Files of Hydra, which counts attempts, the lock, and the page, which a full disk costs a run that is complete."""
Snapshot = dict[str, str]


def snapshot(folder: Path) -> Snapshot:
    """Part of a complete run -> its content or a digest."""
    best = sorted((folder / "checkpoints").glob("best_*.ckpt"))
    record = json.loads((folder / "run.json").read_text())
    parts = state(folder) | {
        "rows of metrics.csv": repr(rows(folder)),
        "best checkpoint": _digest([read_checkpoint(path)["state_dict"] for path in best]),
        "record": repr(
            [record[key] for key in ("status", "step", "better", "error")] + sorted(record["metrics"].items())
        ),
        "files": " ".join(sorted(_names(folder))),
    }
    pictures = sorted(path for path in (folder / "pictures").rglob("*") if path.is_file())
    return parts | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}


def state(folder: Path) -> Snapshot:
    """The parts that the last checkpoint alone holds."""
    last = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    return {
        "weights": _digest(last["state_dict"]),
        "optimizer": _digest([last["optimizer_states"], last["lr_schedulers"], last["global_step"]]),
    }


def fingerprint(folder: Path) -> Snapshot:
    """The parts that every run has, whatever its callbacks are."""
    return {key: value for key, value in snapshot(folder).items() if key not in ("files", "record")}


def differences(expected: Snapshot, found: Snapshot) -> dict[str, str]:
    """Part -> how it differs."""
    names = [name for name in expected | found if expected.get(name) != found.get(name)]
    return {name: _difference(expected.get(name, "absent"), found.get(name, "absent")) for name in names}


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without the columns ``time/...``; none without the file."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not str(k).startswith("time/")} for row in csv.DictReader(file)]


def _names(folder: Path) -> list[str]:
    """All files but those of Hydra, and those that a run has set aside because they were damaged."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [str(name) for name in names if name.parts[0] not in UNCOMPARED and ".damaged" not in name.name]


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(repr((value.dtype, value.shape)).encode() + value.detach().contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _add(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _add(digest, item)
    else:
        digest.update(repr(value).encode())


def _difference(expected: str, found: str) -> str:
    """The first place where two texts differ."""
    place = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), 0)
    return f"{found[max(0, place - 30) : place + 60]!r} instead of {expected[max(0, place - 30) : place + 60]!r}"
