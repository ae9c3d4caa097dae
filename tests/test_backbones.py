"""What every net of conf/model promises: classes, learned variance, half precision, compilation, resuming, export."""

import pytest
import torch
from conftest import CONF, QUIET, TINY, composed
from hydra.utils import instantiate
from omegaconf import OmegaConf
from parts import NETS, words_for_net
from resuming import whole_and_resumed
from torch import nn

from litdiffusion.build import Run, build
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export

SHAPES = {"unet1d": (2, 13)}
SQUARE = {"diffusers_unet": (1, 8, 8), "diffusers_dit": (1, 8, 8)}
"""Of other packages, which take no odd sizes."""
every_net = pytest.mark.parametrize("name", NETS)
LONG = ("diffusers_unet", "source_unet", "mlp")
"""Nets whose costly tests are slow: other tests resume, export or compile a net of their kind."""
every_net_in_time = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in NETS]
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def made(name: str, num_classes: int = 3, factor: int = 1) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The net of a yaml with random weights in place of zeros, two of its inputs and their noise labels."""
    if name.startswith("diffusers"):
        pytest.importorskip("diffusers", reason="nets of another package")
    shape = SHAPES.get(name) or SQUARE.get(name, (1, 9, 8))
    derived = {"shape": shape, "out_channels": factor * shape[0], "num_classes": num_classes}
    derived |= {"num_class_embeds": num_classes + 1 if num_classes else None, "noise_label_range": [1.0, 1000.0]}
    derived["conditions"] = []
    node = OmegaConf.create({"model": OmegaConf.load(CONF / "model" / f"{name}.yaml"), "derived": derived})
    net = instantiate(node.model).eval()
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net, torch.randn(2, *shape), torch.tensor([20.0, 700.0])


@every_net
def test_a_net_learns_classes_and_none_is_the_last(name):
    net, x, noise_label = made(name)
    told = [net(x, noise_label, torch.full((2,), k)) for k in (0, 3)]
    assert (told[0] - told[1]).abs().max() > 1e-3
    assert torch.equal(net(x, noise_label), told[1])


@every_net
def test_a_net_without_classes_sees_the_noise_label_and_can_return_more_channels(name):
    net, x, noise_label = made(name, num_classes=0, factor=2)
    out = net(x, noise_label)
    assert out.shape == (2, 2 * x.shape[1], *x.shape[2:])
    assert (net(x, noise_label.flip(0)) - out).abs().max() > 1e-3


@every_net
@pytest.mark.parametrize("cast", [False, True], ids=["autocast", "cast"])
def test_half_precision_is_close_to_full(name, cast):
    net, x, noise_label = made(name)
    expected, labels = net(x, noise_label, torch.tensor([0, 2])), torch.tensor([0, 2])
    if cast:
        found = net.to(torch.bfloat16)(x.bfloat16(), noise_label, labels)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x, noise_label, labels)
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


@every_net_in_time
def test_a_net_compiles_without_graph_breaks(name):
    net, x, noise_label = made(name)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    labels = torch.tensor([0, 2])
    torch.testing.assert_close(compiled(x, noise_label, labels), net(x, noise_label, labels), rtol=1e-5, atol=1e-5)


@every_net_in_time
def test_a_run_resumes_bit_for_bit_and_its_export_draws_the_same(name, tmp_path):
    if name.startswith("diffusers"):
        pytest.importorskip("diffusers", reason="nets of another package")
    words = [*TINY, *QUIET, *words_for_net(name), "trainer.max_steps=2", "trainer.limit_val_batches=0", "metrics=none"]
    whole_and_resumed(words, 1, tmp_path)
    folder = export(tmp_path / "step_2.ckpt", tmp_path / "exported")
    ours, theirs = (Pretrained(path).sample(n=2, seed=3) for path in (folder, tmp_path / "step_2.ckpt"))
    assert torch.equal(ours, theirs)


def test_a_net_of_diffusers_has_the_loss_of_a_loop_in_diffusers_own_style(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="the package that is compared with")
    chain = ["schedule.beta_start=1e-4", "schedule.beta_end=0.02", "conditional=false"]
    words = [*TINY, *QUIET, "data=digits", "model=diffusers_unet", "model.net.block_out_channels=[8,8]", *chain]
    module = build(composed(*words, "metrics=none"), Run(tmp_path)).module.eval()
    x_0, eps = torch.rand(64, 1, 8, 8) * 2 - 1, torch.randn(64, 1, 8, 8)
    losses = module.objective(module.denoiser, x_0, noise=lambda x: eps)

    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)
    timesteps = (1000 * losses.t).round().long() - 1  # theirs count from 0
    x_t = scheduler.add_noise(x_0, eps, timesteps)
    out = module.denoiser.net.net(x_t, timesteps + 1, return_dict=False)[0]
    torch.testing.assert_close(losses.mean(), nn.functional.mse_loss(out, eps), rtol=1e-5, atol=1e-6)
