"""The recipe for CIFAR-10: the numbers of its papers, and that it trains, goes on exactly and samples."""

from pathlib import Path

import pytest
import torch
from conftest import QUIET, composed
from fakes import write_cifar10
from omegaconf import OmegaConf
from resuming import whole_and_resumed

from litdiffusion.config.make import make
from litdiffusion.diffusion.levels import Level
from litdiffusion.nets import UNet
from litdiffusion.pretrained import Pretrained

SMALL = ["model.channels=[8,16,16,16]", "model.blocks=1", "model.embedding_dim=32", "lr_schedule.warmup_steps=2"]
SHORT = ["data.batch_size=16", "data.val_size=16", "trainer.max_steps=7", "trainer.val_check_interval=4"]
HERE = [*QUIET, "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]


def test_the_recipe_has_the_numbers_that_docs_cifar10_gives():
    cfg = composed("experiment=cifar10")
    schedule = make(cfg.schedule, "schedule")
    sampler = make(cfg.sampler, "sampler")
    assert sampler.calls(schedule) == 35
    levels: list[Level] = sampler.levels(schedule)
    assert float(levels[0].sigma) == pytest.approx(80, rel=1e-6)
    assert float(levels[-2].sigma) == pytest.approx(0.002, rel=1e-6)
    assert float(levels[-1].sigma) == 0
    halved = cfg.ema_decay ** (500_000 / cfg.data.batch_size)
    assert halved == pytest.approx(0.5, abs=0.01), "EDM's average forgets half in half a million images"
    assert cfg.trainer.max_steps * cfg.data.batch_size == 51_200_000
    own = ("channels", "blocks", "patch", "attention", "embedding_dim", "dropout")
    with torch.device("meta"):
        net = UNet((3, 32, 32), (0.0, 1.0), **{name: OmegaConf.to_container(cfg.model)[name] for name in own})
    assert sum(weight.numel() for weight in net.parameters()) == 36_288_771


@pytest.mark.slow
def test_the_recipe_trains_goes_on_exactly_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LITDIFFUSION_DATA", str(tmp_path))
    write_cifar10(tmp_path, monkeypatch)
    whole_and_resumed(["experiment=cifar10", *SMALL, *SHORT, *HERE], 3, tmp_path)
    drawn = Pretrained(str(tmp_path / "step_3.ckpt")).sample(n=3, seed=7)
    assert drawn.shape == (3, 3, 32, 32)
    assert drawn.isfinite().all()
