"""What is known before the first step: shapes that fit, room on the disk, and an estimate of what a run needs."""

import shutil

import pytest
import torch
from conftest import QUIET, TINY, TINY_UNET, UNDRAWN, UNMEASURED, composed
from torch import nn

from litdiffusion.build import Run, build
from litdiffusion.codecs import Codec
from litdiffusion.commands.planning import make_plan
from litdiffusion.config.checks import check_disk, format_bytes
from litdiffusion.config.optimizer import state_per_weight
from litdiffusion.config.shapes import check_shapes, dummy_forward
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.diffusion.schedules import SingleLevel
from litdiffusion.errors import UserError
from litdiffusion.nets import MLP, SourceUNet

BARE = [*UNDRAWN, "schedule.steps=25"]
BARE += ["callbacks.forward_process=null", "logger=none", *UNMEASURED]


class Linear(nn.Module):
    """Two layers whose kept activations can be counted by hand; ``out`` numbers come out."""

    def __init__(self, out: int = 3):
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, out)
        self.calls = []

    def forward(self, x, noise_label, class_label=None):
        self.calls.append(x.device.type)
        return self.last(torch.relu(self.first(x)))


def test_a_net_is_asked_on_meta_and_its_kept_activations_are_counted():
    net = Linear()
    answer = dummy_forward(net, (3,))
    assert answer.shape == (2, 3)
    assert net.calls == ["meta"]
    # For the gradient: x (2, 3), and relu's output (2, 5), which the last layer keeps too; in float32.
    assert answer.activation_bytes == 4 * (2 * 3 + 2 * 5)
    assert all(weight.device.type == "cpu" for weight in net.parameters())


def test_asking_draws_no_random_number_and_changes_nothing():
    net = SourceUNet(shape=(1, 8, 8), base_channels=8, depth=1)
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in net.state_dict().items()}
    assert dummy_forward(net, (1, 8, 8)).shape == (2, 1, 8, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training


class Looking(Linear):
    """Looks at values and holds a tensor that is no buffer: neither can be done on meta."""

    def __init__(self):
        super().__init__()
        self.table = torch.ones(3)

    def forward(self, x, noise_label, class_label=None):
        return super().forward(x + self.table + float(noise_label[0].item() > 2), noise_label, class_label)


def test_a_net_that_cannot_run_on_meta_is_called_for_real():
    state = torch.get_rng_state()
    net = Looking()
    torch.set_rng_state(state)
    assert dummy_forward(net, (3,)).shape == (2, 3)
    assert net.calls == ["cpu"]
    assert torch.equal(torch.get_rng_state(), state)


def test_conditions_are_asked_with_classes():
    net = MLP(shape=(2,), noise_label_range=(1, 10), num_classes=4)
    assert dummy_forward(net, (2,), num_classes=4).shape == (2, 2)
    with pytest.raises(UserError, match=r"the net fails on x \(2, 7\)"):
        dummy_forward(net, (7,), num_classes=4)


def test_parts_that_do_not_fit_are_named_with_both_shapes(built):
    experiment = built("data.size=600")
    check_shapes(experiment.module, experiment.data)
    experiment.module.denoiser.net = MLP(shape=(2,), noise_label_range=(1, 1000), out_channels=3)
    with pytest.raises(UserError, match=r"the net returns shape \(2, 3\), \(2, 2\) is needed"):
        check_shapes(experiment.module, experiment.data)


class Halved(Sampler):
    """Loses a coordinate in its step."""

    def step(self, x, prediction, now, after, noise):
        return x[:, :1]


class Halving(Codec):
    """A codec that does not give what it promises."""

    def latent_shape(self, shape):
        return tuple(shape)

    def encode(self, data):
        return data[:, :1]


def test_samplers_and_codecs_are_asked_too(built):
    experiment = built("data.size=600")
    experiment.module.sampler = Halved()
    with pytest.raises(UserError, match=r"the sampler returns shape \(2, 1\), \(2, 2\) is needed"):
        check_shapes(experiment.module, experiment.data)
    with pytest.raises(UserError, match=r"sampler=Halved does not fit this process: .*; take sampler=langevin"):
        Halved().check(SingleLevel(0.5))
    experiment.module.codec = Halving()
    with pytest.raises(UserError, match=r"the codec's encode returns shape \(1,\), \(2,\) is needed"):
        check_shapes(experiment.module, experiment.data)


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [(torch.optim.Adam, 2), (torch.optim.AdamW, 2), (torch.optim.SGD, 0), (torch.optim.RMSprop, 1)],
)
def test_an_optimizer_s_memory_per_weight_is_seen_from_one_step(optimizer, numbers):
    assert state_per_weight(lambda net: optimizer(net.parameters(), lr=0.1)) == numbers


@pytest.mark.parametrize("part", [["data.size=600", "model.hidden=256"], TINY_UNET], ids=["points", "images"])
def test_the_size_of_a_checkpoint_is_foretold(part, trained, tmp_path):
    cfg = composed(*TINY, *BARE, *part)
    experiment = build(cfg, Run(tmp_path / "planned"))
    plan = make_plan(experiment)
    checkpoints = trained(*BARE, *part) / "checkpoints"
    written = (checkpoints / "last.ckpt").stat().st_size
    assert 0.9 <= plan.checkpoint / written <= 1.1
    assert len(list(checkpoints.glob("*.ckpt"))) <= plan.kept
    weights = sum(p.numel() for p in experiment.module.denoiser.parameters()) * 4
    assert (plan.memory.weights, plan.memory.average, plan.memory.optimizer) == (weights, weights, 2 * weights)


def test_a_full_disk_is_refused_with_what_is_needed_and_free(built, tmp_path, monkeypatch):
    cfg = composed(*TINY, *BARE, "data.size=600")
    plan = make_plan(build(cfg, Run(tmp_path / "planned")))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, plan.disk))
    check_disk(plan.disk, plan.disk_use, tmp_path / "not" / "there" / "yet")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 2048))
    with pytest.raises(UserError, match=rf"need {format_bytes(plan.disk)} .* has 2\.0 kB free"):
        check_disk(plan.disk, plan.disk_use, tmp_path)


def test_a_run_without_checkpoints_needs_no_room(tmp_path):
    cfg = composed(*TINY, *QUIET, "data.size=600")
    assert make_plan(build(cfg, Run(tmp_path))).disk == 0


def test_a_dry_run_prints_the_plan_and_leaves_no_folder(command, tmp_path):
    status, out, err = command("train.py", "dry_run=true", "data.size=600", "trainer.max_steps=40", *TINY[1:])
    assert status == 0, err
    lines = dict(line.split(None, 1) for line in out.splitlines() if line.startswith("  "))
    assert lines["parameters"] == "33,794"
    assert lines["steps"] == "40 of 1 x 512 items; 1 batches per epoch, 40.0 epochs"
    assert lines["sampler"] == "litdiffusion.diffusion.samplers.Ancestral"
    assert not (tmp_path / lines["folder"]).exists()
    assert not list(tmp_path.rglob("*"))


def test_sizes_are_written_for_people():
    assert [format_bytes(n) for n in (0, 1023, 1536, 5 * 1024**3)] == ["0 B", "1023 B", "1.5 kB", "5.0 GB"]
