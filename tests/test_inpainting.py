"""RePaint against exact conditionals, and the script on tiny checkpoints."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from conftest import BARE_RUN, CONF, TINY_UNET, composed
from omegaconf import OmegaConf
from PIL import Image

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.config.make import make
from litdiffusion.data.toy_module import Moons, TwoGaussians
from litdiffusion.diffusion.denoisers import GaussianMixtureDenoiser
from litdiffusion.diffusion.levels import per_sample_noise, seeded_noise
from litdiffusion.diffusion.samplers import Ancestral, RePaint
from litdiffusion.diffusion.schedules import VP, LinearChain
from litdiffusion.errors import UserError
from litdiffusion.pretrained.inpainting import conditional_truth
from litdiffusion.pretrained.problems import hidden_images

SCHEDULE = LinearChain(100)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian(schedule, mean, std):
    return GaussianMixtureDenoiser(schedule, double([1.0]), double([mean]), double([std]))


def some_x(n, seed=0):
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


WEIGHTS, MEANS, STDS = [0.5, 0.5], [[-1.0, -0.6], [1.0, 0.6]], [0.5, 0.4]
FIRST = torch.tensor([True, False])


def mixture(schedule):
    return GaussianMixtureDenoiser(schedule, double(WEIGHTS), double(MEANS), double([STDS]))


def second_given(x, n, schedule=None, **settings):
    """n draws of y at the known x."""
    schedule = schedule or VP()
    known = double([[x, 0.0]]).expand(n, 2)
    sampler = RePaint(known, FIRST, **settings)
    start = sampler.prior(schedule, known, seeded_noise(1))
    samples = sampler.sample(mixture(schedule), start, noise=seeded_noise(0))
    assert torch.equal(samples[:, 0], known[:, 0])
    return samples[:, 1]


def exact(x):
    """Weight of the upper mode, mean and deviation of y given x."""
    weight = double([-0.5 * ((x - mean[0]) / STDS[0]) ** 2 for mean in MEANS]).softmax(0)
    mean = weight @ double(MEANS)[:, 1]
    return weight[1].item(), mean.item(), (STDS[1] ** 2 + weight @ double(MEANS)[:, 1] ** 2 - mean**2).sqrt().item()


def test_repaint_draws_the_exact_conditional_where_plain_replacement_hardly_conditions():
    n, x, settings = 1000, 0.2, {"steps": 40, "variance": "forward"}
    share, mean, std = exact(x)  # 0.83, 0.40, 0.60; without x 0.5, 0, 0.72
    found = {r: second_given(x, n, resample=r, **settings) for r in (1, 4, 40)}
    errors = {r: (y.mean().item() - mean) / (std / n**0.5) for r, y in found.items()}
    assert errors[1] < -10  # in standard errors
    assert errors[1] < errors[4] < errors[40]
    assert abs(errors[40]) < 3
    assert found[40].std().item() == pytest.approx(std, rel=0.08)
    upper = mixture_share(found[40])
    assert abs(upper - share) < 3 * (share * (1 - share) / n) ** 0.5
    assert mixture_share(found[1]) < share - 8 * (share * (1 - share) / n) ** 0.5


def mixture_share(y):
    """The weight of the upper mode whose mixture has this share of positive values."""
    above = torch.distributions.Normal(0, 1).cdf(double(0.6 / STDS[1])).item()
    return ((y > 0).double().mean().item() - (1 - above)) / (2 * above - 1)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "schedule").glob("*.yaml")))
@pytest.mark.filterwarnings("ignore:the noise schedule ends at alpha = ")
def test_every_schedule_inpaints_a_gaussian_or_says_why_not(name):
    schedule = make(composed(f"schedule={name}").schedule, "schedule")
    known = double([[0.7, 5.0]]).expand(1000, 2)
    sampler = RePaint(known, FIRST, min(schedule.steps or 30, 30), resample=3, variance="forward")
    if schedule.steps == 1:
        with pytest.raises(UserError, match="inpainting does not fit this process: a single noise level"):
            sampler.check(schedule)
        return
    sampler.check(schedule)
    start = sampler.prior(schedule, known, seeded_noise(1))
    found = sampler.sample(gaussian(schedule, [0.0, 0.3], [1.0, 0.5]), start, noise=seeded_noise(0))
    assert torch.equal(found[:, 0], known[:, 0])
    assert found[:, 1].mean().item() == pytest.approx(0.3, abs=0.08)
    assert found[:, 1].std().item() == pytest.approx(0.5, rel=0.12)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_with_nothing_known_it_is_ancestral_and_with_everything_known_it_changes_nothing(variance):
    x, known = some_x(6), some_x(6, seed=1)
    sampler = RePaint(known, torch.zeros(6, 2), 7, 1, variance)
    ancestral = Ancestral(7, variance, "karras").sample(mixture(SCHEDULE), x, noise=torch.ones_like)
    torch.testing.assert_close(sampler.sample(mixture(SCHEDULE), x, noise=torch.ones_like), ancestral)
    assert torch.equal(RePaint(known, torch.ones(6, 2), 7, 3).sample(mixture(SCHEDULE), x), known)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", [[True, False], [[0, 1]], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]])
def test_the_known_part_ends_exactly_as_given(dtype, mask):
    known = some_x(4).to(dtype) / 3
    mask = torch.tensor(mask)
    hidden = torch.where(mask.bool(), known, torch.nan)  # what is masked may be anything
    found = RePaint(hidden, mask, 5, 2).sample(mixture(SCHEDULE), some_x(4, seed=1).to(dtype))
    rows = mask.bool().expand(4, 2)
    assert found.dtype == dtype
    assert torch.equal(found[rows], known[rows])
    assert found.isfinite().all()
    assert not (found == known)[~rows].any()


def test_one_known_item_serves_a_whole_batch():
    found = RePaint(double([[0.4, 0.0]]), FIRST, 5, 2).sample(mixture(SCHEDULE), some_x(8))
    assert (found[:, 0] == 0.4).all()
    assert len(found[:, 1].unique()) == 8


def test_with_noise_per_sample_a_sample_does_not_depend_on_its_batch():
    known = some_x(5)

    def draw(rows):
        rows = list(rows)
        noise = per_sample_noise(rows)
        sampler = RePaint(known[rows], FIRST, 6, 3)
        return sampler.sample(mixture(SCHEDULE), sampler.prior(SCHEDULE, known[rows], noise), noise=noise)

    apart = torch.cat([draw(range(2)), draw(range(2, 5))])
    torch.testing.assert_close(draw(range(5)), apart, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("steps", "resample"), [(None, 1), (6, 1), (6, 4), (1, 4)])
def test_it_says_how_often_it_asks_and_gives_one_state_per_transition(steps, resample):
    denoiser, asked = mixture(SCHEDULE), []
    denoiser.register_forward_hook(lambda *_: asked.append(1))
    sampler = RePaint(torch.zeros(3, 2).double(), FIRST, steps, resample)
    states = list(sampler.trajectory(denoiser, some_x(3)))
    assert len(asked) == sampler.calls(SCHEDULE)
    assert [state.level for state in states] == sampler.levels(SCHEDULE)


@pytest.mark.parametrize(
    ("known", "mask", "settings", "message"),
    [
        ([[1.0, 2.0]], [0.5, 1.0], {}, "false or 0 elsewhere, got other values"),
        ([[1.0, 2.0]], [1.0, 1.0, 0.0], {}, r"mask \(3,\) does not fit known \(1, 2\)"),
        ([[1.0, float("nan")]], [0, 1], {}, "NaN or infinite where mask is true"),
        ([[1.0, 2.0]], [0, 1], {"resample": 0}, "at least 1 .*got 0"),
        ([[1.0, 2.0]], [0, 1], {"variance": "both"}, "variance must be one of"),
    ],
)
def test_what_cannot_be_inpainted_is_refused(known, mask, settings, message):
    with pytest.raises(UserError, match=message):
        RePaint(torch.tensor(known), torch.tensor(mask), **settings)


# The script

KINDS = {
    "digits": [*TINY_UNET, "schedule.steps=30"],
    "moons": ["data=moons", "schedule.steps=30"],
    "line": ["data=gaussian_mixture", "schedule.steps=30"],
    "dsm": ["data=two_gaussians", "recipe=dsm"],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The path of a tiny run's last checkpoint, trained once for all tests here."""

    @cache
    def path(kind):
        folder = tmp_path_factory.mktemp(kind)
        train(composed(*BARE_RUN, *KINDS[kind]), Run(folder))
        return folder / "checkpoints" / "last.ckpt"

    return path


@pytest.mark.parametrize("mask", ["left", "random", None])
def test_images_are_inpainted_around_what_is_known(mask, command, checkpoint, tmp_path):
    asked = [f"mask={mask}"] if mask else []
    few = ["n=3", "samples=2", "steps=3", "resample=2", f"out={tmp_path}/drawn"]
    status, out, err = command("scripts/inpaint.py", f"ckpt={checkpoint('digits')}", *asked, *few)
    assert status == 0, err
    assert "3 x 2 inpaintings in" in out
    drawn = np.load(tmp_path / "drawn" / "inpainting.npz")
    items, known, samples = drawn["items"], drawn["mask"], drawn["samples"]
    assert (items.shape, known.shape, samples.shape) == ((3, 1, 8, 8), (3, 1, 8, 8), (3, 2, 1, 8, 8))
    rows = np.broadcast_to(known[:, None], samples.shape)
    assert np.array_equal(samples[rows], np.broadcast_to(items[:, None], samples.shape)[rows])
    assert np.isfinite(samples).all()
    assert (samples[:, 0] != samples[:, 1]).any()
    assert Image.open(tmp_path / "drawn" / "inpainting.png").width > 500


def test_points_are_drawn_at_the_first_coordinates_asked_for_whatever_the_batch(command, checkpoint, tmp_path):
    def draw(*args):
        few = ["x=[-1,0.5]", "samples=60", "steps=4", "resample=2", *args]
        status, out, err = command("scripts/inpaint.py", f"ckpt={checkpoint('moons')}", *few)
        assert status == 0, err
        assert len(re.findall(r"x = \S+: W1 between 60 values of y and the data's \d", out)) == 2
        return np.load(out.strip().rpartition(": ")[2] + "/inpainting.npz")["samples"]

    together, apart = draw(), draw("batch_size=1")
    assert np.array_equal(together[..., 0], np.broadcast_to([[-1], [0.5]], (2, 60)))
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-5)
    folders = sorted(path.name for path in checkpoint("moons").parent.glob("inpainting_*"))
    assert folders == ["inpainting_000", "inpainting_001"]
    assert not (tmp_path / "inpaint.log").exists()


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        (None, [], "give a checkpoint: litdiffusion inpaint"),
        (None, ["ckpt=nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        ("digits", ["mask=lefft"], "mask=lefft is not known; did you mean left?"),
        ("digits", ["x=[1]"], "x does not apply to data of shape (1, 8, 8)"),
        ("digits", ["resample=0"], "resample must be a whole number of at least 1, got 0"),
        ("digits", ["steps=31"], "must lie in 1..30"),
        ("digits", ["grid=karas"], "did you mean karras?"),
        ("digits", ["variance=both"], "variance must be one of"),
        ("digits", ["mask=random", "mask.share=2"], "mask.share must lie in (0, 1], got 2"),
        ("digits", ["masc=left"], "did you mean mask?"),
        ("moons", ["mask=left"], "mask does not apply to data of shape (2,)"),
        ("moons", ["condition.age=1"], "condition does not apply to inpainting of points; leave it out"),
        ("digits", ["condition.age=1"], "the model has no condition age (it was trained without conditions)"),
        ("moons", ["x=1"], "x must be a list of numbers, as in x=[-1,0,1], got 1"),
        ("moons", ["x=[]"], "x must be a list of numbers"),
        ("line", [], "this checkpoint's data have 1"),
        ("dsm", [], "inpainting does not fit this process: a single noise level"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else "",
)
def test_bad_inpainting_ends_in_one_line(kind, args, message, command, checkpoint):
    ckpt = [f"ckpt={checkpoint(kind)}"] if kind else []
    status, _, err = command("scripts/inpaint.py", *ckpt, *args)
    lines = [line for line in err.splitlines() if line.strip()]
    assert (status, len(lines)) == (2, 1), err
    assert message in lines[0]


def test_inpaintings_are_never_overwritten(command, checkpoint, tmp_path):
    args = [f"ckpt={checkpoint('moons')}", "n=1", "samples=2", "steps=2", f"out={tmp_path}/drawn"]
    assert command("scripts/inpaint.py", *args)[0] == 0
    status, _, err = command("scripts/inpaint.py", *args)
    assert status == 2
    assert "already holds inpainting" in err


class Pictures:
    """Held-out images of an odd size."""

    def reference(self, n):
        return torch.zeros(n, 3, 5, 4)


def hidden(mask, n=2, seed=0):
    node = OmegaConf.load(CONF / "mask" / f"{mask}.yaml")
    return ~hidden_images(OmegaConf.create({"mask": node, "n": n, "seed": seed}), Pictures()).mask


def test_masks_hide_what_their_names_say():
    counts = {name: hidden(name)[0, 0].sum().item() for name in ("left", "right", "top", "bottom", "center")}
    assert counts == {"left": 10, "right": 10, "top": 8, "bottom": 8, "center": 6}
    assert hidden("left")[:, :, :, :2].all()
    assert hidden("bottom")[:, :, 3:].all()
    assert hidden("center")[0, 1, 1:4, 1:3].all()


def test_the_random_mask_is_one_per_image_for_all_its_channels_and_a_function_of_the_seed():
    many = hidden("random", n=200)
    assert many.double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(many[:, 0], many[:, 2])
    assert not torch.equal(many[0], many[1])
    assert torch.equal(hidden("random", n=3), many[:3])
    assert not torch.equal(hidden("random", n=3, seed=1), many[:3])


def test_the_truth_beside_the_samples_is_the_data_s_own_conditional():
    data = TwoGaussians(batch_size=2, val_size=2, seed=0, size=1000)
    mixture, x = data.mixture, 0.1
    weights = (mixture.weights.log() - 0.5 * ((x - mixture.means[:, 0]) / mixture.std[0]) ** 2).softmax(0)
    truth = conditional_truth(data, data.draw(10, 0), x)
    assert truth.mean().item() == pytest.approx((weights @ mixture.means[:, 1]).item(), abs=0.03)
    data = Moons(batch_size=2, val_size=2, seed=0)
    moons = conditional_truth(data, data.draw(50_000, 0), 0.0)
    assert moons.abs().min() > 0.4  # two branches, above and below the middle, and nothing between
    assert (moons > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
