"""Processes that follow the deviation of the data, and the warning of those that do not."""

import warnings

import pytest
import torch
from analytic import double
from conftest import composed

from litdiffusion.config.derived import look_up
from litdiffusion.data import DataModule, scale_of, warn_of_scale
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import Denoiser, GaussianMixtureDenoiser
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.parameterizations import EDM, Score
from litdiffusion.diffusion.samplers import Ancestral, AnnealedLangevin, Euler, Heun, PredictorCorrector
from litdiffusion.diffusion.schedules import VE, VP, GeometricLadder, LinearChain, LinearFlow, LinearSigma

FOLLOWING = {
    "ve": (VE, PredictorCorrector(60)),
    "edm": (LinearSigma, Heun(25, "karras", "auto")),
    "ncsn": (GeometricLadder, AnnealedLangevin(inner_steps=5)),
}


def normal(shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def samples(schedule, sampler, std, mean=0.0, n=3000):
    noise = seeded_noise(1)
    denoiser = GaussianMixtureDenoiser(schedule, double([1.0]), double([[mean]]), double([[std]]))
    return sampler.sample(denoiser, sampler.prior(schedule, torch.empty(n, 1).double(), noise), noise=noise)


@pytest.mark.parametrize("std", [1e-3, 100.0])
@pytest.mark.parametrize(("make", "sampler"), FOLLOWING.values(), ids=FOLLOWING)
def test_where_the_levels_follow_the_data_samples_are_those_of_unit_data_in_their_unit(make, sampler, std):
    own, unit = samples(make(sigma_data=std), sampler, std), samples(make(), sampler, 1.0)
    torch.testing.assert_close(own / std, unit, rtol=1e-9, atol=1e-9)
    assert unit.std().item() == pytest.approx(1, abs=0.2)


def test_at_unit_scale_nothing_changes_and_null_means_the_data_s_own_units():
    for make, low, high in ((VE, 0.01, 50.0), (LinearSigma, 0.002, 80.0), (GeometricLadder, 0.01, 10.0)):
        ends = [(s.at(s.t_min).sigma.item(), s.prior_std) for s in (make(), make(sigma_data=None))]
        assert ends == [pytest.approx((low, high), rel=1e-12)] * 2
        scaled = make(sigma_data=7.0)
        assert (scaled.at(scaled.t_min).sigma.item(), scaled.prior_std) == pytest.approx((7 * low, 7 * high))
        assert [s.sigma_data for s in (make(), make(sigma_data=None), scaled)] == [1.0, None, 7.0]


STANDING = {
    "ddpm": (LinearChain(200), Ancestral()),
    "vp": (VP(), Ancestral(100)),
    "flow": (LinearFlow(), Euler(50)),
}


@pytest.mark.parametrize(("schedule", "sampler"), STANDING.values(), ids=STANDING)
def test_the_others_lose_the_scale_which_is_what_the_warning_says(schedule, sampler):
    assert samples(schedule, sampler, 1.0).std().item() == pytest.approx(1, abs=0.06)
    assert samples(schedule, sampler, 1e-3).std().item() / 1e-3 < 0.3
    if isinstance(schedule, LinearFlow):
        assert samples(schedule, sampler, 100.0).std().item() / 100 < 0.5


@pytest.mark.parametrize("schedule", [make(sigma_data=100.0) for make, _ in FOLLOWING.values()], ids=FOLLOWING)
@pytest.mark.parametrize("row", [Score(), EDM(100.0)], ids=["score", "edm"])
def test_the_net_sees_unit_variance_of_data_of_any_deviation(schedule, row):
    class Seen(torch.nn.Module):
        def forward(self, x, noise_label, class_label=None):
            self.x = x
            return x

    x_0, eps = 100 * normal((4000, 1)), normal((4000, 1), 1)
    for t in (schedule.t_min or 1e-3, 0.5, 1.0):
        net, level = Seen(), schedule.at(t)
        Denoiser(net, schedule, row)(level.alpha * x_0 + level.sigma * eps, level)
        assert net.x.std().item() == pytest.approx(1, abs=0.05)


def test_the_deviation_is_about_the_mean_of_each_coordinate_or_channel():
    x = normal((4000, 2)) * double([3.0, 4.0]) + double([0.0, 1000.0])
    scale = scale_of(x)
    assert scale.mean.tolist() == pytest.approx(x.mean(0).tolist())
    assert scale.std.tolist() == pytest.approx(x.std(0, correction=0).tolist())
    assert scale.sigma_data == pytest.approx(12.5**0.5, rel=0.02)
    images = normal((50, 3, 8, 8)) * double([1.0, 2.0, 3.0]).view(3, 1, 1) + double([0.0, 5.0, -5.0]).view(3, 1, 1)
    scale = scale_of(images)
    assert scale.mean.tolist() == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert scale.std.tolist() == pytest.approx([1, 2, 3], rel=0.05)
    assert scale_of(torch.full((9, 2), 3.0)).sigma_data == 1.0
    assert scale_of(1 + 1e-7 * normal((9, 2))).sigma_data < 1e-6  # no cancellation


WARNED = {
    "wide": (100.0, 0.0, 1.0, False, "have the deviation [19].*made for 1,"),
    "narrow": (1e-3, 0.0, 1.0, True, "have the deviation 0.00"),
    "of another deviation than the process": (1.0, 0.0, 50.0, False, "made for 50"),
    "far from 0": (1.0, 50.0, 1.0, False, "the mean (50|49.9).* and the deviation .*, and samples start at 0"),
    "far from 0, in the data's own units": (1.0, -50.0, None, False, "the mean -(50|49.9)"),
    "uneven": ([1.0, 1e-3], 0.0, 1.0, False, "have a coordinate with the deviation 0.00.*, and the noise schedule is"),
    "uneven, and followed as a whole": ([1e-3, 1e3], 0.0, 707.0, False, "have a coordinate with the deviation 0.00"),
    "both": (
        100.0,
        500.0,
        1.0,
        False,
        "have the deviation .*, and have a coordinate with the mean .*standardise the data",
    ),
}
NOT_WARNED = {
    "unit": (1.0, 0.0, 1.0, False),
    "within the bounds": (2.5, 2.0, 1.0, False),
    "followed": (100.0, 0.0, 100.0, False),
    "in its own units": (100.0, 0.0, None, False),
    "dark images": (0.6, -0.74, 1.0, True),
    "images of uneven channels": ([0.9, 0.1], 0.0, 0.7, True),
    "a constant coordinate": ([1.2, 0.0], 0.0, 1.0, False),
}


@pytest.mark.parametrize(("std", "mean", "made_for", "has_range", "words"), WARNED.values(), ids=WARNED)
def test_data_that_a_process_does_not_follow_are_warned_of_in_one_line_with_the_remedy(
    std, mean, made_for, has_range, words
):
    with pytest.warns(UserWarning, match=words) as caught:
        warn_of_scale(scale_of(mean + torch.tensor(std) * normal((500, 2))), made_for, has_range)
    (line,) = [str(warning.message) for warning in caught]
    assert "\n" not in line
    assert "standardise the data (codec=auto or standardise)" in line
    helps = made_for is not None and "the training data have the deviation" in line
    assert ("or take recipe=edm, ve or ncsn" in line) == helps  # a recipe follows one deviation, and no mean


@pytest.mark.parametrize(("std", "mean", "made_for", "has_range"), NOT_WARNED.values(), ids=NOT_WARNED)
def test_other_data_are_not_warned_of(std, mean, made_for, has_range):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scale(scale_of(mean + torch.tensor(std) * normal((500, 2))), made_for, has_range)


class Wide(DataModule):
    """Points of deviation 40 about 0."""

    shape = (3,)

    def __init__(self, *, size: int, batch_size: int, val_size: int, seed: int, standardise: bool, mean: float = 0.0):
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        self.size = size
        self.mean = mean

    def read(self):
        return tuple(Batch(self.mean + 40 * normal((n, 3)).float()) for n in (self.size, self.val_size))


@pytest.mark.parametrize(("recipe", "high"), [("edm", 80.0), ("ve", 50.0), ("ncsn", 10.0)])
def test_a_run_measures_the_deviation_and_its_schedule_follows(built, recipe, high, recwarn):
    experiment = built(f"recipe={recipe}", "codec=identity", "data._target_=test_scale.Wide", "metrics=none")
    sigma_data = experiment.cfg.derived.sigma_data
    assert sigma_data == pytest.approx(40, rel=0.1)
    assert experiment.module.denoiser.schedule.prior_std == pytest.approx(high * sigma_data)
    assert experiment.cfg.schedule.sigma_data == sigma_data
    assert not [line for line in recwarn if "training data" in str(line.message)]


@pytest.mark.parametrize("words", [["recipe=flow"], ["recipe=edm", "+data.mean=500"]], ids=["flow", "edm"])
def test_a_run_warns_of_data_that_its_process_does_not_follow(built, words):
    with pytest.warns(UserWarning, match="the training data have"):
        built(*words, "codec=identity", "data._target_=test_scale.Wide", "metrics=none")


def test_a_config_alone_knows_its_schedule_too():
    cfg = composed("recipe=edm", "data=two_gaussians", "data.standardise=false", "codec=identity")
    assert cfg.schedule.sigma_data == cfg.derived.sigma_data == look_up("sigma_data", cfg)
    assert cfg.schedule.sigma_data == pytest.approx(((400 * 2 / 9 + 1 + 2 / 9 + 1) / 2) ** 0.5, rel=0.03)
    assert composed("recipe=edm", "data=spiral").derived.sigma_data == 1.0
