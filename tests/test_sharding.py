"""FSDP: losses, average and checkpoint of one process. Lightning wants a GPU for it, torch itself does not."""

import os
from types import SimpleNamespace

import pytest
import torch
from conftest import composed
from launching import PLAIN, column, output, start, state
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from litdiffusion.config.checks import check_sharded
from litdiffusion.config.make import make
from litdiffusion.config.trainer import make_trainer
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.training.sharding import _is_unit

UNDRAWN = [f"callbacks.{name}=null" for name in ("live_quality", "live_likelihood", "condition_sweep")]
ON_CPU = """
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

class OnCPU(FSDPStrategy):
    def _setup_model(self, model):
        options = {"sharding_strategy": self.sharding_strategy, **self.kwargs}
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **options)
"""


def test_the_preset_keeps_one_file_and_the_noise_label_s_digits():
    strategy = make(composed("trainer=fsdp").trainer.strategy, "trainer.strategy")
    assert isinstance(strategy, FSDPStrategy)
    assert strategy._state_dict_type == "full"
    assert strategy.mixed_precision_config.param_dtype is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
@pytest.mark.parametrize(
    ("words", "message"),
    [(["trainer=fsdp"], "No supported gpu"), (["trainer.strategy=fsdp", "trainer.accelerator=cpu"], "requires a GPU")],
)
def test_it_is_refused_in_one_line_without_a_gpu(words, message):
    cfg = composed(*words)
    cfg.derived = {"precision": "32-true", "run_dir": "run"}
    with pytest.raises(UserError, match=message) as refusal:
        make_trainer(cfg, [], [])
    assert "\n" not in str(refusal.value)


def trainer(world: int, kind: str = "full") -> SimpleNamespace:
    return SimpleNamespace(strategy=SimpleNamespace(_state_dict_type=kind), world_size=world)


def test_what_cannot_work_on_shards_is_refused():
    alone = [*UNDRAWN, *(word for word in PLAIN if word.startswith("callbacks."))]
    check_sharded(composed("trainer=fsdp"), trainer(1))
    check_sharded(composed("trainer=fsdp", *alone), trainer(2))
    for words, kind, message in (
        ([], "full", r"add callbacks.trajectory=null .* callbacks.live_quality=null"),
        ([*alone, "optimizer=muon"], "full", "needs whole matrices"),
        (alone, "sharded", "must be full"),
        ([*alone, "data.val_size=129", "data.batch_size=64"], "full", "take a multiple of 2"),
    ):
        with pytest.raises(UserError, match=message):
            check_sharded(composed("trainer=fsdp", *words), trainer(2, kind))


def test_units_are_the_nets_and_what_the_user_s_policy_adds_inside_them():
    nets = [nn.Sequential(nn.Linear(2, 2)) for _ in range(2)]
    module = nn.ModuleList([*nets, nn.Linear(2, 2)])
    chosen = [part for part in module.modules() if _is_unit(part, False, 0, nets, None)]
    assert chosen == nets

    def linear(module, recurse, nonwrapped_numel):
        return isinstance(module, nn.Linear)

    chosen = [part for part in module.modules() if _is_unit(part, False, 0, nets, linear)]
    assert chosen == [nets[0], nets[0][0], nets[1], nets[1][0]]


@pytest.mark.slow
def test_two_sharded_processes_have_losses_average_and_file_of_one(tmp_path):
    """Without the optimizer's states: on a CPU torch gathers all of them into one buffer and copies none."""
    (tmp_path / "oncpu.py").write_text(ON_CPU)
    words = [*PLAIN, *UNDRAWN, "trainer.max_steps=20", "trainer.val_check_interval=10", "trainer.log_every_n_steps=5"]
    words += ["data=moons", "data.size=1000", "data.val_size=128", "model.hidden=16", "metrics=none", "logger=csv"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    sharded = ["trainer.devices=2", "data.batch_size=32", "trainer.strategy={_target_: oncpu.OnCPU}", "trusted=[oncpu]"]
    for name, more in (("one", ["data.batch_size=64"]), ("two", sharded)):
        output(start(tmp_path / name, *words, *more, PYTHONPATH=path))
    for name in ("train/loss", "train/gradient_norm", "val/loss"):
        one, two = (torch.tensor(column(tmp_path / run, name)) for run in ("one", "two"))
        torch.testing.assert_close(two, one, rtol=1e-5, atol=0)
    one, two = (state(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
    samples = [Pretrained(tmp_path / run / "checkpoints" / "last.ckpt").sample(4, seed=1) for run in ("one", "two")]
    torch.testing.assert_close(*samples, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="Lightning's FSDPStrategy needs a GPU")
def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    words = [word for word in [*PLAIN, *UNDRAWN] if not word.startswith("trainer.accelerator")]
    words += ["trainer=fsdp", "metrics=none", "trainer.max_steps=12", "trainer.log_every_n_steps=4", "logger=csv"]
    words += ["+callbacks.keep={_target_: lightning.pytorch.callbacks.ModelCheckpoint, every_n_train_steps: 4}"]
    words += ["callbacks.keep.save_top_k=-1", "callbacks.keep.filename='{step}'"]
    output(start(tmp_path / "whole", *words, f"+callbacks.keep.dirpath={tmp_path}/kept"))
    words.append(f"ckpt_path='{tmp_path}/kept/step=4.ckpt'")
    output(start(tmp_path / "rest", *words, f"+callbacks.keep.dirpath={tmp_path}/again"))
    first, second = (state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "rest"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-6)
    assert Pretrained(tmp_path / "rest" / "checkpoints" / "last.ckpt").sample(2).shape[0] == 2
