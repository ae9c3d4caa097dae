"""Runs in processes of their own: signals and several processes. Slow: each process imports everything."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY

pytestmark = pytest.mark.slow
PLAIN = [*TINY, "callbacks.trajectory=null", "callbacks.final_samples=null", "callbacks.progress_bar=null"]
DDP = ["trainer=ddp", "trainer.devices=2", "data.batch_size=300", "trainer.enable_progress_bar=false"]
KEEP = [
    "+callbacks.keep._target_=lightning.pytorch.callbacks.ModelCheckpoint",
    "+callbacks.keep.every_n_train_steps=4",
    "+callbacks.keep.save_top_k=-1",
    "+callbacks.keep.filename='step_{step}'",
    "+callbacks.keep.auto_insert_metric_name=false",
]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    arguments = [sys.executable, "train.py", *overrides, f"hydra.run.dir={folder}"]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_two_processes_train_and_resume_bit_for_bit(tmp_path):
    options = [*PLAIN, *DDP, *KEEP, "trainer.max_steps=12", "trainer.log_every_n_steps=4"]
    whole = start(tmp_path / "whole", *options, f"+callbacks.keep.dirpath={tmp_path}/kept")
    assert whole.wait(timeout=300) == 0, whole.stdout.read()
    ckpt = f"ckpt_path={tmp_path}/kept/step_4.ckpt"
    rest = start(tmp_path / "rest", *options, f"+callbacks.keep.dirpath={tmp_path}/again", ckpt)
    assert rest.wait(timeout=300) == 0, rest.stdout.read()
    first, second = (state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "rest"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert len((tmp_path / "whole" / "metrics.csv").read_text().splitlines()) > 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(number, status, tmp_path):
    options = [*PLAIN, "trainer.max_steps=1000000", "trainer.val_check_interval=100", "trainer.log_every_n_steps=50"]
    run = start(tmp_path, *options, "trainer.enable_progress_bar=false")
    for line in run.stdout:
        if "run folder" in line:
            break
    while not (tmp_path / "checkpoints" / "last.ckpt").exists():
        assert run.poll() is None
    run.send_signal(number)
    out, _ = run.communicate(timeout=120)
    assert run.returncode == status, out
    assert "resume with ckpt_path=" in out
    assert state(tmp_path / "checkpoints" / "last.ckpt")
