"""Samples in lower precision, and batches that do not fit into memory."""

import numpy as np
import pytest
import torch
from conftest import TINY, UNDRAWN, composed

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.diffusion.denoisers import FittingDenoiser
from litdiffusion.diffusion.levels import Prediction
from litdiffusion.diffusion.samplers import Heun
from litdiffusion.diffusion.schedules import LinearChain
from litdiffusion.pretrained import Pretrained

SCHEDULE = LinearChain(100)


class Small(torch.nn.Module):
    """A denoiser whose prediction depends on the class, on a device that holds ``most`` items."""

    def __init__(self, most: int):
        super().__init__()
        self.schedule, self.most, self.sizes = SCHEDULE, most, []

    def forward(self, x_t, level, class_label=None):
        self.sizes.append(len(x_t))
        if len(x_t) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        shift = 0 if class_label is None else class_label.view(-1, 1)
        return Prediction(torch.tanh(x_t) + shift, x_t - shift)


@pytest.mark.parametrize("class_label", [None, torch.arange(10)])
def test_a_batch_that_does_not_fit_is_computed_in_parts(class_label, capfd):
    x, level = torch.randn(10, 2), SCHEDULE.at(0.5)
    small = Small(most=3)
    fitting = FittingDenoiser(small)
    for _ in range(2):
        found, expected = fitting(x, level, class_label), Small(most=10)(x, level, class_label)
        assert torch.equal(found.x_0, expected.x_0)
        assert torch.equal(found.eps, expected.eps)
        assert found.variance_fraction is None
    assert small.sizes == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(
        "note: 5 samples at once do not fit into the memory of cpu; the network takes 3 at a time"
    )


def test_one_item_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        FittingDenoiser(Small(most=0))(torch.randn(4, 2), SCHEDULE.at(0.5))


def test_errors_of_other_kinds_pass():
    with pytest.raises(RuntimeError, match="must match the size"):
        FittingDenoiser(Small(most=9))(torch.randn(4, 2), SCHEDULE.at(0.5), torch.zeros(3))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("precision") / "run"
    words = ["data=digits", "model=unet", "model.channels=[8,16]", "callbacks.progress_bar=null", "metrics=none"]
    train(composed(*TINY, *UNDRAWN, *words), Run(folder))
    return folder / "checkpoints" / "last.ckpt"


def test_lower_precision_changes_samples_little_and_keeps_their_seeds(command, checkpoint, tmp_path):
    """bfloat16 has 8 bits: an error of 2^-9 of each value, which the sampler of a smooth net does not enlarge much."""
    drawn = {}
    for precision in ("32-true", "bf16-mixed"):
        words = [f"ckpt={checkpoint}", "n=6", "sampler=heun", "steps=5", "device=cpu", f"out={tmp_path / precision}"]
        status, _, err = command("scripts/sample.py", *words, f"precision={precision}")
        assert status == 0, err
        drawn[precision] = torch.from_numpy(np.load(tmp_path / precision / "samples.npz")["samples"])
    difference = (drawn["bf16-mixed"] - drawn["32-true"]).square().mean().sqrt()
    assert 0 < difference < 0.05 * drawn["32-true"].std()
    pretrained = Pretrained(checkpoint)
    pretrained.sampler = Heun(5)
    again = pretrained.sample(6, device="cpu", precision="bf16-mixed")
    torch.testing.assert_close(again, drawn["bf16-mixed"], rtol=0, atol=1e-6)


def test_an_unknown_precision_is_refused_in_one_line(command, checkpoint, tmp_path):
    status, _, err = command("scripts/sample.py", f"ckpt={checkpoint}", "precision=8", "n=2", f"out={tmp_path}/out")
    assert status == 2
    assert err.strip() == "error: precision must be one of 32-true, bf16-mixed, 16-mixed, got 8"
