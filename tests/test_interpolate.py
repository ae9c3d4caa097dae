"""Walks: the arc of noise in closed form, ends that are plain samples bit for bit, files of scripts/interpolate.py."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BARE_RUN, TINY_UNET, composed
from PIL import Image
from test_cli import one_error
from test_conditional import MODES

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.diffusion.denoisers import GaussianMixtureDenoiser, MixedClasses
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.samplers import DDIM, DPMSolver2M, Heun, UniPC
from litdiffusion.diffusion.schedules import VP
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.interpolating import NoiseDrawn, no_noise, slerp


def test_the_arc_keeps_norm_and_turns_evenly():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    for share in (0.0, 0.25, 0.5, 0.9, 1.0):
        angle = share * math.pi / 2
        expected = torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)]])
        torch.testing.assert_close(slerp(a, b, share, (1,)), expected)
    a, b = torch.randn(2, 3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    norms = [x.flatten(1).norm(dim=1) for x in (a, b)]
    middle = slerp(a, b, 0.3, (1, 2, 3))
    torch.testing.assert_close(middle.flatten(1).norm(dim=1), 0.7 * norms[0] + 0.3 * norms[1])
    assert (0.7 * a + 0.3 * b).norm() < 0.8 * middle.norm()  # what a straight line would lose
    assert torch.equal(slerp(a, b, 0, (1, 2, 3)), a)
    assert torch.equal(slerp(a, b, 1, (1, 2, 3)), b)
    torch.testing.assert_close(slerp(a, a, 0.5, (1, 2, 3)), a)


def test_a_cloud_stays_normal_on_its_way():
    """Every point on an arc of its own would keep too small norms; the arc of the whole cloud keeps its law."""
    a, b = torch.randn(2, 20_000, 2, generator=torch.Generator().manual_seed(1))
    middle = slerp(a, b, 0.5, (0, 1))
    assert middle.std().item() == pytest.approx(1, abs=0.02)
    assert (middle.norm(dim=1) ** 2).mean().item() == pytest.approx(2, abs=0.04)
    assert (middle.norm(dim=1) ** 4).mean().item() == pytest.approx(8, abs=0.3)


class Two(torch.nn.Module):
    """Class k is N(means[k], std²), exactly."""

    def __init__(self, means, std):
        super().__init__()
        self.schedule, one = VP(), torch.ones(1, dtype=torch.float64)
        self.classes = [GaussianMixtureDenoiser(self.schedule, one, one[None] * mean, one * std) for mean in means]

    def forward(self, x_t, level, class_label=None):
        return self.classes[int(class_label[0])](x_t, level)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_gaussians_of_one_width_are_the_gaussian_between(share):
    """N(a, s²)^(1 - u) N(b, s²)^u is N((1 - u) a + u b, s²) at every level of noise."""
    denoiser, labels = Two((-1.0, 2.0), 0.3), torch.zeros(64, dtype=torch.long)
    mixed = MixedClasses(denoiser, labels + 1, share)
    between = Two(((1 - share) * -1.0 + share * 2.0,), 0.3)
    x = seeded_noise(0)(torch.empty(64, 1, dtype=torch.float64))
    for level in DDIM(5).levels(denoiser.schedule)[:-1]:
        a, b = mixed(x, level, labels), between(x, level, labels)
        torch.testing.assert_close(a.x_0, b.x_0)
        torch.testing.assert_close(a.eps, b.eps)


@pytest.mark.parametrize("sampler", [DDIM(4), Heun(4), DPMSolver2M(4), UniPC(4)])
def test_samplers_that_the_message_names_draw_no_noise(sampler):
    denoiser = Two((0.0,), 1.0)
    x = torch.ones(3, 1, dtype=torch.float64)
    assert sampler.sample(denoiser, x, torch.zeros(3, dtype=torch.long), no_noise).isfinite().all()
    with pytest.raises(NoiseDrawn, match="draws noise in its steps"):
        DDIM(4, eta=0.5).sample(denoiser, x, torch.zeros(3, dtype=torch.long), no_noise)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    train(composed(*BARE_RUN, *TINY_UNET, "conditional=true", "schedule.steps=25", "metrics=none"), Run(folder))
    return folder / "checkpoints/last.ckpt"


def walked(command, ckpt: Path, out: Path, *args: str) -> np.lib.npyio.NpzFile:
    status, _, err = command("scripts/interpolate.py", f"ckpt={ckpt}", f"out={out}", "device=cpu", *args)
    assert status == 0, err
    return np.load(out / "interpolation.npz")


def plain(ckpt: Path, n: int, seed: int, steps: int, class_label=None) -> np.ndarray:
    pretrained = Pretrained(ckpt)
    pretrained.sampler = DDIM(steps)
    return pretrained.sample(n, seed, class_label, device="cpu").numpy()


def test_the_ends_of_a_walk_are_plain_samples(digits, command, tmp_path):
    options = ["n=3", "frames=4", "steps=5", "seeds=[2,7]", "class_label=4"]
    found = walked(command, digits, tmp_path / "walk", *options)
    assert found["samples"].shape == (5, 3, 1, 8, 8)
    np.testing.assert_array_equal(found["shares"], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(found["samples"][0], plain(digits, 3, 2, 5, 4))
    np.testing.assert_array_equal(found["samples"][-1], plain(digits, 3, 7, 5, 4))
    with Image.open(tmp_path / "walk/interpolation.gif") as gif:
        assert gif.n_frames == 8  # there and back
    assert (tmp_path / "walk/interpolation.png").is_file()


def test_a_walk_through_classes_passes_their_samples(digits, command, tmp_path):
    found = walked(command, digits, tmp_path / "walk", "n=2", "frames=3", "steps=5", "class_label=[3,8,1]")
    for frame, class_label in ((0, 3), (3, 8), (6, 1)):
        np.testing.assert_array_equal(found["samples"][frame], plain(digits, 2, 0, 5, class_label))
    assert len(found["samples"]) == 7
    assert len(np.unique(found["samples"].reshape(7, -1), axis=0)) == 7


def test_points_move_as_a_cloud(command, tmp_path):
    train(composed(*BARE_RUN, *MODES, "metrics=none", "model.hidden=16"), Run(tmp_path / "run"))
    ckpt = tmp_path / "run/checkpoints/last.ckpt"
    found = walked(command, ckpt, tmp_path / "walk", "n=40", "frames=2", "steps=4", "class_label=2")
    assert found["samples"].shape == (3, 40, 1)
    np.testing.assert_array_equal(found["samples"][0], plain(ckpt, 40, 0, 4, 2))
    np.testing.assert_array_equal(found["samples"][-1], plain(ckpt, 40, 40, 4, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sampler=ancestral"], "this sampler draws noise in its steps"),
        (["seeds=3"], "seeds=[3] and class_label=None give no way to walk; give two seeds or two classes"),
        (["seeds=[1,2,3]", "class_label=[0,1]"], "3 seeds and 2 classes do not pair up"),
        (["seeds=[1,-2]"], "seeds must be whole numbers of at least 0, got [1, -2]"),
        (["frames=0"], "frames must be a whole number of at least 1"),
        (["class_label=[3,77]"], "class_label must be whole numbers from 0 to 9, got 77"),
    ],
)
def test_bad_walks_are_one_line(arguments, message, digits, command, tmp_path):
    status, _, err = command("scripts/interpolate.py", f"ckpt={digits}", "device=cpu", *arguments)
    assert message in one_error(status, err)
    assert not list(digits.parent.glob("interpolation_*"))
