"""Gradient checkpointing: equal numbers, less memory."""

import copy

import pytest
import torch
from conftest import BARE_RUN, composed
from memory import PeakBytes
from test_backbones import made
from torch import nn

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.errors import UserError
from litdiffusion.training.checkpoints import read_checkpoint
from litdiffusion.training.recomputing import blocks_of, with_gradient_checkpointing

WITH_BLOCKS = ["unet", "dit", "residual_mlp", "source_unet", "unet1d", "diffusers_unet", "diffusers_dit"]


def gradients(net: nn.Module, x: torch.Tensor, noise_label: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)  # for dropout
    net.train()(x, noise_label).square().mean().backward()
    return [weight.grad for weight in net.parameters() if weight.grad is not None]


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_values_gradients_and_names_are_those_of_the_plain_net(name):
    net, x, noise_label = made(name)
    plain = copy.deepcopy(net)
    net = with_gradient_checkpointing(net)
    assert list(net.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(net.eval()(x, noise_label), plain.eval()(x, noise_label))
    pairs = zip(gradients(net, x, noise_label), gradients(plain, x, noise_label), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_copy_of_the_net_computes_its_own_blocks():
    net, x, noise_label = made("unet")
    net = with_gradient_checkpointing(net)
    average = copy.deepcopy(net)
    for weight in net.parameters():
        weight.data.zero_()
    assert average(x, noise_label).abs().max() > 0


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_step_keeps_less(name):
    peaks = []
    for recompute in (False, True):
        net, x, noise_label = made(name)
        net = with_gradient_checkpointing(net) if recompute else net
        x, noise_label = (values.repeat_interleave(32, dim=0) for values in (x, noise_label))
        with PeakBytes() as memory:
            net.train()(x, noise_label).square().mean().backward()
        peaks.append(memory.peak)
    assert peaks[1] < 0.6 * peaks[0]


def test_blocks_are_the_innermost_members_of_lists():
    net = nn.Sequential(nn.Linear(1, 1), nn.ModuleList([nn.ModuleList([nn.Sequential(nn.Linear(1, 1))]), nn.ReLU()]))
    assert [type(block) for block in blocks_of(net)] == [nn.Sequential, nn.ReLU]
    with pytest.raises(UserError, match=r"needs a net with an nn\.ModuleList of blocks, Sequential has none"):
        with_gradient_checkpointing(nn.Sequential(nn.Linear(1, 1)))


def test_a_run_is_continued_with_it_to_the_last_bit(tmp_path):
    words = [*BARE_RUN, "data=digits", "data.batch_size=8", "model=unet", "model.channels=[8]", "model.blocks=1"]
    words += ["lr_schedule=constant"]
    for name, recompute in (("plain", ["false", "false"]), ("mixed", ["false", "true"])):
        for steps, word in zip((2, 4), recompute, strict=True):
            more = [f"trainer.max_steps={steps}", f"gradient_checkpointing={word}"]
            train(composed(*words, *more), Run(tmp_path / name, "run"))
    plain, mixed = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("plain", "mixed")
    )
    assert all(torch.equal(mixed[name], value) for name, value in plain.items())
