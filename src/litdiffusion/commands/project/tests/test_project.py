"""The network keeps shapes, and the experiment trains."""

import subprocess
import sys
from pathlib import Path

import torch

from my_project.nets import Plain

ROOT = Path(__file__).parent.parent


def test_the_network_keeps_the_shape():
    net = Plain(shape=(2,), noise_label_range=(1, 1000), hidden=16)
    assert net(torch.randn(5, 2), torch.arange(1, 6)).shape == (5, 2)


def test_the_experiment_trains_a_step():
    words = ["train", "--config-dir", "conf", "experiment=first", "trainer.fast_dev_run=true"]
    result = subprocess.run([sys.executable, "-m", "litdiffusion", *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
