"""Every schedule of conf/schedule against published formulas, finite differences and its own inverse."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from litdiffusion.errors import UserError
from litdiffusion.schedules import DiscreteSchedule, cosine, linear, scaled_linear, sigmoid

FILES = sorted((Path(__file__).parents[1] / "conf" / "schedule").glob("*.yaml"))
LENGTHS = (2, 10, 50, 200, 1000)
REFUSED = {("linear", 2), ("linear", 10), ("scaled_linear", 2), ("scaled_linear", 10)}  # beta = 20 / T, 12 / T >= 1
CASES = [(path, steps) for path in FILES for steps in LENGTHS if (path.stem, steps) not in REFUSED]
every_schedule = pytest.mark.parametrize(("path", "steps"), CASES, ids=[f"{p.stem}-{n}" for p, n in CASES])


def load(path, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some end early on purpose; that warning has its own tests
        return instantiate(OmegaConf.load(path), steps=steps)


def indices(steps):
    return torch.arange(1, steps + 1, dtype=torch.float64)


def random_times(count=300):
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(min=1e-6)


def test_the_folder_of_schedules_is_not_empty():
    assert {"linear", "scaled_linear", "cosine", "sigmoid", "mnist_source", "toy_source"} <= {p.stem for p in FILES}


@every_schedule
def test_snr_falls_strictly_along_the_chain_and_between_its_levels(path, steps):
    schedule = load(path, steps)
    for t in (indices(steps) / steps, random_times().sort().values):
        snr = schedule.at(t).snr
        assert (snr[1:] < snr[:-1]).all()


@every_schedule
def test_variance_is_preserved(path, steps):
    schedule = load(path, steps)
    for t in (torch.arange(steps + 1, dtype=torch.float64) / steps, random_times()):
        _, alpha, sigma = schedule.at(t)
        assert (alpha**2 + sigma**2 - 1).abs().max() < 1e-12


@every_schedule
def test_rates_equal_central_differences_inside_each_cell(path, steps):
    schedule = load(path, steps)
    middle, h = (indices(steps) - 0.5) / steps, 1e-4 / steps
    _, alpha_before, sigma_before = schedule.at(middle - h)
    _, alpha_after, sigma_after = schedule.at(middle + h)
    alpha_rate, sigma_rate = schedule.rates(middle)
    torch.testing.assert_close(alpha_rate, (alpha_after - alpha_before) / (2 * h), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(sigma_rate, (sigma_after - sigma_before) / (2 * h), rtol=1e-5, atol=1e-7)


ULP_LENGTHS = [2, 10, 50, 200, 1000]  # at T = 50, 7 / T * T exceeds 7 by the last bit


@pytest.mark.parametrize("steps", ULP_LENGTHS)
def test_rates_at_a_level_are_those_of_the_cell_that_ends_there(steps):
    schedule = cosine(steps)
    at_level, before = schedule.rates(indices(steps) / steps), schedule.rates((indices(steps) - 1e-6) / steps)
    torch.testing.assert_close(at_level, before, rtol=1e-4, atol=0)


@every_schedule
def test_time_inverts_log_snr(path, steps):
    schedule = load(path, steps)
    for t in (indices(steps) / steps, random_times()):
        torch.testing.assert_close(schedule.time(schedule.at(t).snr.log()), t, rtol=0, atol=1e-9)


@every_schedule
def test_time_stays_within_0_and_1_beyond_the_chain(path, steps):
    schedule = load(path, steps)
    beyond = torch.tensor([-torch.inf, -500.0, 500.0, torch.inf], dtype=torch.float64)
    torch.testing.assert_close(schedule.time(beyond), torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), rtol=0, atol=1e-12)


@every_schedule
def test_snap_takes_the_next_level_upwards_and_never_clean_data(path, steps):
    schedule = load(path, steps)
    t = torch.cat([random_times(), torch.tensor([0.0, 1.0]).double()])
    index = np.maximum(np.ceil(t.numpy() * steps), 1)
    np.testing.assert_allclose(schedule.snap(t).t, index / steps, rtol=1e-15)


@pytest.mark.parametrize("steps", ULP_LENGTHS)
def test_snap_leaves_the_levels_of_the_chain_where_they_are(steps):
    t = indices(steps) / steps
    snapped = cosine(steps).snap(t)
    torch.testing.assert_close(snapped.t, t, rtol=0, atol=1e-12)
    for ours, general in zip(snapped, cosine(steps).at(t), strict=True):
        torch.testing.assert_close(ours, general, rtol=1e-12, atol=0)


@every_schedule
def test_label_counts_the_levels_and_previous_goes_one_down(path, steps):
    schedule = load(path, steps)
    levels = schedule.at(indices(steps) / steps)
    previous = schedule.previous(levels)
    assert torch.equal(schedule.label(levels), indices(steps))
    assert torch.equal(schedule.label(previous), indices(steps) - 1)
    torch.testing.assert_close(previous.alpha[1:], levels.alpha[:-1], rtol=1e-13, atol=0)
    assert previous.alpha[0] == 1
    assert previous.sigma[0] == 0
    assert schedule.label_range == (1.0, float(steps))


@every_schedule
def test_full_grid_visits_every_level_from_the_last_to_clean_data(path, steps):
    schedule = load(path, steps)
    grid = schedule.grid(None)
    assert [round(level.t.item() * steps) for level in grid] == list(range(steps, -1, -1))
    assert all(level.t.ndim == level.alpha.ndim == level.sigma.ndim == 0 for level in grid)
    assert [level.is_clean for level in grid] == [False] * steps + [True]
    expected = schedule.at(torch.arange(steps, -1, -1, dtype=torch.float64) / steps)
    assert torch.equal(torch.stack([level.alpha for level in grid]), expected.alpha)
    assert torch.equal(torch.stack([level.sigma for level in grid]), expected.sigma)


@pytest.mark.parametrize("steps", [2, 10, 50, 200])
def test_every_shorter_grid_falls_through_distinct_levels_evenly(steps):
    schedule = cosine(steps)
    for count in range(1, steps + 1):
        positions = np.array([level.t.item() for level in schedule.grid(count)]) * steps
        assert len(positions) == count + 1
        assert positions[0] == steps
        assert positions[-1] == 0
        np.testing.assert_allclose(positions, np.round(positions), atol=1e-9)
        gaps = -np.diff(np.round(positions))
        assert gaps.min() >= 1
        assert abs(gaps - steps / count).max() <= 1


def capped(alpha_bar, max_beta=0.999):
    return np.cumprod(1 - np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def published_cosine(steps):
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return capped(f / f[0])


def published_sigmoid(steps, start=-3.0, end=3.0, tau=1.0):
    def logistic(x):
        return 1 / (1 + np.exp(-x))

    t = np.arange(steps + 1) / steps
    v_start, v_end = logistic(start / tau), logistic(end / tau)
    return capped((v_end - logistic((t * (end - start) + start) / tau)) / (v_end - v_start))


PUBLISHED = {
    "linear": lambda n: np.cumprod(1 - np.linspace(0.1 / n, 20 / n, n)),
    "scaled_linear": lambda n: np.cumprod(1 - np.linspace((0.85 / n) ** 0.5, (12 / n) ** 0.5, n) ** 2),
    "cosine": published_cosine,
    "sigmoid": published_sigmoid,
    "mnist_source": lambda n: np.cumprod(1 - np.linspace(1e-4, 0.02, n)),
    "toy_source": lambda n: np.cumprod(1 - np.linspace(1e-4, 0.2, n)),
}


@every_schedule
def test_alpha_squared_is_the_published_alpha_bar(path, steps):
    _, alpha, sigma = load(path, steps).at(indices(steps) / steps)
    alpha_bar = PUBLISHED[path.stem](steps)
    np.testing.assert_allclose(alpha**2, alpha_bar, rtol=1e-9)
    np.testing.assert_allclose(sigma**2, 1 - alpha_bar, rtol=1e-9)


@pytest.mark.parametrize("make", [linear, scaled_linear, cosine, sigmoid])
def test_defaults_in_code_are_the_presets_of_the_same_name(make):
    preset = load(next(path for path in FILES if path.stem == make.__name__), 1000)
    assert torch.equal(make().at(indices(1000) / 1000).alpha, preset.at(indices(1000) / 1000).alpha)


def test_linear_at_1000_steps_is_the_table_of_ho():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(linear().at(indices(1000) / 1000).alpha ** 2, alpha_bar, rtol=1e-10)


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.0])
def test_sigmoid_follows_its_temperature_and_range(tau):
    alpha = sigmoid(100, start=-2.0, end=4.0, tau=tau).at(indices(100) / 100).alpha
    np.testing.assert_allclose(alpha**2, published_sigmoid(100, -2.0, 4.0, tau), rtol=1e-9)


@pytest.mark.parametrize("steps", [50, 77, 200, 1000, 4096])
def test_default_linear_chain_ends_in_pure_noise_without_a_warning(steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = linear(steps)
    assert schedule.at(1.0).alpha < 0.01
    assert schedule.prior_std == 1.0


@pytest.mark.parametrize(("make", "alpha"), [(linear, np.exp(-10.05 / 2)), (scaled_linear, None)])
def test_long_default_chains_tend_to_their_continuous_limit(make, alpha):
    if alpha is None:  # the integral of ((1 - t) sqrt(.85) + t sqrt(12))² over [0, 1]
        alpha = np.exp(-(0.85 + (0.85 * 12) ** 0.5 + 12) / 6)
    errors = [abs(make(steps).at(1.0).alpha.item() / alpha - 1) for steps in (1000, 2000, 4000)]
    assert errors[2] < 0.01
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.05)


def test_mnist_source_warns_of_the_signal_left_at_its_end():
    with pytest.warns(UserWarning, match=r"0\.132.*samples start from the wrong prior"):
        instantiate(OmegaConf.load(next(p for p in FILES if p.stem == "mnist_source")))


@pytest.mark.parametrize("path", [p for p in FILES if p.stem != "mnist_source"], ids=lambda p: p.stem)
def test_every_other_preset_ends_in_pure_noise_without_a_warning(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert instantiate(OmegaConf.load(path)).at(1.0).alpha <= 0.1


@pytest.mark.parametrize(("make", "rate", "shortest"), [(linear, 20, 21), (scaled_linear, 12, 13)])
def test_default_betas_refuse_chains_too_short_for_them_and_name_the_remedy(make, rate, shortest):
    for steps in range(2, shortest):
        with pytest.raises(UserError, match=rf"beta_end .*got {rate / steps:g} \(T = {steps};.*take schedule=cosine"):
            make(steps)
    assert make(shortest).steps == shortest


@pytest.mark.parametrize("steps", [-5, 0, 1])
@pytest.mark.parametrize("make", [linear, scaled_linear, cosine, sigmoid])
def test_fewer_than_two_steps_are_refused(make, steps):
    with pytest.raises(UserError, match=rf"at least 2 and whole, got {steps}; 200 to 1000"):
        make(steps)


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.0, 1.5, float("nan")])
def test_betas_outside_0_and_1_are_refused_with_the_value(beta):
    with pytest.raises(UserError, match=rf"strictly between 0 and 1, got {beta:.4g} \(1 of 3 outside\); change"):
        DiscreteSchedule(torch.tensor([0.1, beta, 0.2]))


@pytest.mark.parametrize("betas", [torch.tensor([0.5]), torch.tensor(0.5), torch.empty(0)])
def test_tables_of_fewer_than_two_betas_are_refused(betas):
    with pytest.raises(UserError, match=rf"at least 2 steps, got {betas.numel()}; set schedule.steps"):
        DiscreteSchedule(betas)


@pytest.mark.parametrize("ends", [{"beta_start": 0.0}, {"beta_start": -0.5}, {"beta_end": 1.0}, {"beta_end": 7.0}])
@pytest.mark.parametrize("make", [linear, scaled_linear])
def test_ends_of_a_beta_table_outside_0_and_1_are_refused_by_name(make, ends):
    (name, value), *_ = ends.items()
    with pytest.raises(UserError, match=rf"schedule.{name} must lie strictly between 0 and 1, got {value:g} .*give it"):
        make(100, **ends)


@pytest.mark.parametrize("steps", [-1, 0, 51, 1000])
def test_more_sampling_steps_than_levels_are_refused(steps):
    with pytest.raises(UserError, match=rf"steps = {steps} must lie in 1\.\.50.*give fewer steps, or null"):
        linear(50).grid(steps)


@pytest.mark.parametrize("bad", [{"start": 3.0, "end": -3.0}, {"tau": 0.0}])
def test_sigmoid_refuses_a_rising_curve(bad):
    with pytest.raises(UserError, match="start < end and tau > 0, got"):
        sigmoid(10, **bad)


def test_casting_the_module_that_holds_a_schedule_keeps_its_table_in_float64():
    holder = torch.nn.Module()
    holder.schedule = linear(50)
    holder.half()
    assert holder.schedule.at(0.5).alpha.dtype == torch.float64
    assert holder.schedule.at(torch.tensor(0.5)).alpha.item() == linear(50).at(0.5).alpha.item()
