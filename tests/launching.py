"""Runs in processes of their own, and what they leave."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from conftest import ROOT, TINY, UNDRAWN

PLAIN = [*TINY, *UNDRAWN, "callbacks.progress_bar=null"]


def start(folder: Path, *overrides: str, **environment: str) -> subprocess.Popen:
    return python("train.py", *overrides, f"hydra.run.dir={folder}", **environment)


def python(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *words], cwd=cwd, env={**os.environ, **environment}, **pipes)


def output(process: subprocess.Popen, status: int = 0) -> str:
    """What the process printed; it must end with this status."""
    out, _ = process.communicate(timeout=300)
    assert process.returncode == status, out
    return out


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def column(folder: Path, name: str) -> list[float]:
    """The values of a column of the run's ``metrics.csv``."""
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
