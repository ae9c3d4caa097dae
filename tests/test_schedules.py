"""Every schedule of conf/schedule against published formulas, finite differences and its own inverse."""

import warnings

import numpy as np
import pytest
import torch
from conftest import CONF
from hydra.utils import instantiate
from omegaconf import OmegaConf
from parts import load, presets

from litdiffusion.diffusion.schedules import (
    VE,
    VP,
    Chain,
    CosineChain,
    DiscreteSchedule,
    GeometricLadder,
    LinearChain,
    LinearFlow,
    LinearSigma,
    NoiseLadder,
    ScaledLinearChain,
    SigmoidChain,
    SingleLevel,
    SubVP,
)
from litdiffusion.errors import UserError

FILES = sorted((CONF / "schedule").glob("*.yaml"))


PRESETS = presets("schedule")
every_preset = pytest.mark.parametrize("schedule", PRESETS.values(), ids=PRESETS)

LENGTHS = (2, 10, 50, 200, 1000)
REFUSED = {("linear", 2), ("linear", 10), ("scaled_linear", 2), ("scaled_linear", 10)}  # beta = 20 / T, 12 / T >= 1
BETAS = [path for path in FILES if isinstance(PRESETS[path.stem], DiscreteSchedule)]
CASES = [(path, steps) for path in BETAS for steps in LENGTHS if (path.stem, steps) not in REFUSED]
every_schedule = pytest.mark.parametrize(("path", "steps"), CASES, ids=[f"{p.stem}-{n}" for p, n in CASES])


def indices(steps):
    return torch.arange(1, steps + 1, dtype=torch.float64)


def random_times(count=300):
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(min=1e-6)


def test_the_folder_of_schedules_is_not_empty():
    betas = {"linear", "scaled_linear", "cosine", "sigmoid", "mnist_source", "toy_source"}
    assert betas <= {path.stem for path in BETAS}
    assert betas | {"ladder", "single", "vp", "subvp", "ve", "edm", "flow"} <= set(PRESETS)


# What every schedule promises.


def inner_times(schedule):
    """Times that are trained on: the middle of every cell of a chain, random ones in continuous time; and a small h."""
    if schedule.steps is not None:
        return (indices(schedule.steps) - 0.5) / schedule.steps, torch.tensor(1e-4 / schedule.steps)
    t = schedule.t_min + (1 - schedule.t_min) * random_times().clamp(1e-3, 1 - 1e-3)
    return t, 1e-4 * t


@every_preset
def test_snr_falls_strictly_and_log_snr_is_its_logarithm(schedule):
    for level in (schedule.probe(), schedule.at(inner_times(schedule)[0].sort().values)):
        assert (level.snr.diff() < 0).all()
        torch.testing.assert_close(level.log_snr, level.snr.log(), rtol=1e-9, atol=1e-9)


@every_preset
def test_rates_are_central_differences(schedule):
    t, h = inner_times(schedule)
    for name, rate in zip(("alpha", "sigma"), schedule.rates(t), strict=True):
        difference = (getattr(schedule.at(t + h), name) - getattr(schedule.at(t - h), name)) / (2 * h)
        torch.testing.assert_close(rate, difference, rtol=1e-5, atol=1e-7)


@every_preset
def test_time_inverts_log_snr_from_the_first_trained_time_to_1(schedule):
    for t in (inner_times(schedule)[0], schedule.probe().t):
        torch.testing.assert_close(schedule.time(schedule.at(t).log_snr), t, rtol=1e-9, atol=1e-9)


@every_preset
def test_time_stays_within_0_and_1_whatever_the_snr(schedule):
    beyond = torch.tensor([-torch.inf, -500.0, 500.0, torch.inf], dtype=torch.float64)
    torch.testing.assert_close(schedule.time(beyond), torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), rtol=0, atol=1e-12)


@every_preset
def test_snap_keeps_trained_times_and_takes_all_others_to_the_nearest_one_above(schedule):
    t = torch.cat([random_times(), torch.tensor([0.0, 1.0]).double()])
    steps = schedule.steps
    expected = t.clamp(min=schedule.t_min) if steps is None else (t * steps).ceil().clamp(min=1) / steps
    torch.testing.assert_close(schedule.snap(t).t, expected, rtol=1e-14, atol=0)
    for ours, general in zip(schedule.snap(t), schedule.at(expected), strict=True):
        torch.testing.assert_close(ours, general, rtol=1e-9, atol=0)


@every_preset
def test_labels_rise_over_the_label_range_from_the_first_trained_time_to_1(schedule):
    noise_labels = schedule.noise_label(schedule.probe())
    assert noise_labels.isfinite().all()
    assert (noise_labels.diff() > 0).all()
    ends = schedule.at(torch.tensor([schedule.t_min, 1.0], dtype=torch.float64))
    assert schedule.noise_label_range == pytest.approx(schedule.noise_label(ends).tolist(), rel=1e-12)
    assert schedule.noise_label_range == pytest.approx((noise_labels[0].item(), noise_labels[-1].item()), rel=1e-12)


@every_preset
def test_probe_spans_the_trained_times(schedule):
    t = schedule.probe().t
    assert (t[0].item(), t[-1].item()) == pytest.approx((schedule.t_min, 1.0), rel=1e-15)
    assert schedule.probe().sigma.min() > 0
    assert len(t) == (schedule.steps or 1001)


@every_preset
def test_grids_fall_from_the_noisiest_level_to_clean_data(schedule):
    usual = schedule.steps or 250
    for steps, count in ((None, usual), *((n, n) for n in (1, 2, 7, usual) if n <= usual)):
        grid = schedule.grid(steps)
        assert len(grid) == count + 1
        assert tuple(grid[0]) == tuple(schedule.at(1.0))
        assert [level.is_clean for level in grid] == [False] * count + [True]
        assert tuple(float(field) for field in grid[-1]) == (0.0, 1.0, 0.0)
        assert (torch.stack([level.log_snr for level in grid]).diff() > 0).all()
        assert all(field.ndim == 0 for level in grid for field in level)


@every_preset
def test_everything_is_float64_whatever_it_is_asked_with(schedule):
    for t in (0.5, torch.tensor(0.5), torch.full((2, 1, 1), 0.5), torch.full((2, 1, 1), 0.5, dtype=torch.float64)):
        level = schedule.at(t)
        answers = [*level, *schedule.rates(t), schedule.time(level.log_snr.float()), schedule.noise_label(level)]
        answers += [*schedule.snap(torch.as_tensor(t, dtype=torch.float64))]
        assert {answer.dtype for answer in answers} == {torch.float64}
        assert {answer.shape for answer in answers} == {torch.as_tensor(t).shape}


@every_preset
def test_flags_say_what_the_levels_say(schedule):
    levels = schedule.probe()
    preserved = (levels.alpha**2 + levels.sigma**2 - 1).abs().max() < 1e-12
    assert schedule.preserves_variance == bool(preserved)
    assert schedule.explodes == bool((levels.alpha == 1).all())
    assert schedule.loses_signal == bool(levels.alpha[-1] == 0)


@every_preset
def test_prior_has_the_deviation_of_the_noisiest_level_s_noise(schedule):
    end = schedule.at(1.0)
    # What is left of data of unit variance is missing from the prior, of mnist_source most of all: alpha = 0.36 there.
    assert schedule.prior_std == pytest.approx(end.sigma.item(), rel=0.08)


@pytest.mark.parametrize(
    ("make", "name"),
    [(VP, "vp"), (SubVP, "subvp"), (VE, "ve"), (LinearSigma, "edm"), (LinearFlow, "flow"), (GeometricLadder, "ladder")],
)
def test_defaults_of_the_other_schedules_are_their_presets_too(make, name):
    ours, theirs = make().probe(), PRESETS[name].probe()
    for field, other in zip(ours, theirs, strict=True):
        assert torch.equal(field, other)


# Closed forms in continuous time.


def test_alpha_of_vp_is_the_integral_of_its_betas():
    t, alpha, sigma = VP(0.2, 15.0).at(random_times())
    integral = 0.2 * t + 14.8 * t**2 / 2
    torch.testing.assert_close(alpha, (-integral / 2).exp(), rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma, (1 - (-integral).exp()).sqrt(), rtol=1e-9, atol=0)


def test_vp_is_the_limit_of_the_linear_chain_at_order_1_over_its_length():
    t = torch.tensor([0.1, 0.3, 0.5, 0.8, 1.0]).double()
    gaps = [(LinearChain(steps).at(t).alpha.log() - VP().at(t).alpha.log()).abs() for steps in (1000, 2000, 4000)]
    assert gaps[2].max() < 0.02
    torch.testing.assert_close(gaps[0] / gaps[1], torch.full_like(t, 2.0), rtol=0.02, atol=0)
    torch.testing.assert_close(gaps[1] / gaps[2], torch.full_like(t, 2.0), rtol=0.02, atol=0)


def test_sub_vp_has_the_alpha_of_vp_and_the_square_of_its_sigma():
    ours, vp = SubVP().at(random_times()), VP().at(random_times())
    assert torch.equal(ours.alpha, vp.alpha)
    torch.testing.assert_close(ours.sigma, vp.sigma**2, rtol=1e-12, atol=0)


def test_ve_rises_geometrically():
    sigma = VE(0.02, 8.0).at(torch.tensor([0.0, 0.25, 0.5, 1.0])).sigma
    np.testing.assert_allclose(sigma, [0.02, 0.02 * 400**0.25, 0.4, 8.0], rtol=1e-12)
    assert VE(0.02, 8.0).prior_std == 8.0


def test_sigma_of_edm_is_linear_in_time_and_its_label_in_log_sigma():
    schedule = LinearSigma(0.01, 40.0)
    sigma = torch.tensor([0.01, 0.05, 1.0, 7.0, 40.0]).double()
    level = schedule.at(sigma / 40)
    torch.testing.assert_close(level.sigma, sigma, rtol=1e-14, atol=0)
    place = (sigma.log() - np.log(0.01)) / (np.log(40) - np.log(0.01))
    torch.testing.assert_close(schedule.noise_label(level), 1000 * place, rtol=1e-10, atol=1e-9)
    assert schedule.t_min == 0.01 / 40
    assert schedule.noise_label_range == pytest.approx((0.0, 1000.0), abs=1e-9)


def test_flow_is_the_straight_path_whose_grid_needs_no_first_trained_time():
    t, alpha, sigma = LinearFlow().at(random_times())
    assert torch.equal(alpha, 1 - t)
    assert torch.equal(sigma, t)
    times = [level.t.item() for level in LinearFlow().grid(8)]
    np.testing.assert_allclose(times, np.arange(8, -1, -1) / 8, atol=1e-15)


def test_edm_s_grid_is_equation_5_of_karras():
    sigmas = [level.sigma.item() for level in LinearSigma().grid(18)]
    steps, rho = np.arange(18) / 17, 7
    expected = (80 ** (1 / rho) + steps * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(sigmas[:-1], expected, rtol=1e-11)
    assert sigmas[-1] == 0


@pytest.mark.parametrize("schedule", [VP(), SubVP(), VE()], ids=["vp", "subvp", "ve"])
def test_other_grids_in_continuous_time_are_even_down_to_the_first_trained_time_then_jump(schedule):
    times = [level.t.item() for level in schedule.grid(9)]
    np.testing.assert_allclose(times[:-1], np.linspace(1, schedule.t_min, 9), atol=1e-15)
    assert times[-1] == 0


# Ladders.


def test_ladder_has_geometric_rungs_and_a_variance_linear_in_time_between_them():
    schedule = GeometricLadder(5, 0.1, 10.0)
    rungs = np.geomspace(0.1, 10, 5)
    np.testing.assert_allclose(schedule.probe().sigma, rungs, rtol=1e-12)
    between = schedule.at((indices(5)[1:] - 0.25) / 5).sigma
    np.testing.assert_allclose(between**2, 0.25 * rungs[:-1] ** 2 + 0.75 * rungs[1:] ** 2, rtol=1e-12)
    assert schedule.prior_std == pytest.approx(10.0, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
def test_single_is_a_ladder_of_one_rung_exact_in_float64(sigma):
    schedule = SingleLevel(sigma)
    assert schedule.steps == 1
    assert schedule.t_min == 1.0
    assert schedule.at(1.0).sigma.item() == pytest.approx(sigma, rel=1e-15)
    assert schedule.at(0.0).is_clean
    assert [level.sigma.item() for level in schedule.grid()] == pytest.approx([sigma, 0.0], rel=1e-15)
    assert schedule.snap(random_times()).t.unique().tolist() == [1.0]


def test_ladder_counts_its_rungs_as_chains_do():
    schedule = GeometricLadder(7)
    assert isinstance(schedule, Chain)
    assert torch.equal(schedule.noise_label(schedule.probe()), indices(7))
    assert torch.equal(schedule.previous(schedule.probe()).sigma[1:], schedule.probe().sigma[:-1])
    assert schedule.previous(schedule.probe()).sigma[0] == 0


BAD = {
    "vp without noise": (lambda: VP(beta_min=0.0), "need 0 < schedule.beta_min <= schedule.beta_max, got 0.0 and 20.0"),
    "vp falling": (lambda: SubVP(5.0, 1.0), "need 0 < schedule.beta_min <= schedule.beta_max, got 5.0 and 1.0"),
    "vp from 0": (lambda: VP(t_min=0.0), "schedule.t_min must lie strictly between 0 and 1, got 0.0; 1e-3"),
    "flow from 1": (lambda: LinearFlow(1.0), "schedule.t_min must lie strictly between 0 and 1, got 1.0; 1e-3"),
    "ve falling": (lambda: VE(2.0, 1.0), "need 0 < schedule.sigma_min < schedule.sigma_max, got 2.0 and 1.0"),
    "edm from 0": (lambda: LinearSigma(0.0, 1.0), "need 0 < schedule.sigma_min < schedule.sigma_max, got 0.0"),
    "a deviation of 0": (lambda: VE(sigma_data=0.0), "schedule.sigma_data must be positive, got 0.0; it is the data's"),
    "ladder of one": (lambda: GeometricLadder(1), "at least 2 and whole, got 1; take schedule=single"),
    "ladder falling": (
        lambda: GeometricLadder(5, 2.0, 1.0),
        "schedule.sigma_min < schedule.sigma_max, got 2.0 and 1.0",
    ),
    "rungs not rising": (
        lambda: NoiseLadder(torch.tensor([1.0, 1.0])),
        r"strictly rising sigmas, got \[1.0, 1.0\]",
    ),
    "no rungs": (lambda: NoiseLadder(torch.empty(0)), r"one or more positive, strictly rising sigmas, got \[\]"),
    "rung at 0": (lambda: NoiseLadder(torch.tensor([0.0, 1.0])), "one or more positive"),
    "single at 0": (lambda: SingleLevel(0.0), "schedule.sigma must be positive, got 0.0; 0.1 to 1"),
    "no steps": (lambda: VP().grid(0), "sampler steps = 0 must be at least 1; 20 to 1000"),
    "more steps than rungs": (
        lambda: GeometricLadder(5).grid(6),
        r"steps = 6 must lie in 1\.\.5.*give fewer steps, or null",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_settings_are_refused_with_the_value_and_the_remedy(make, message):
    with pytest.raises(UserError, match=message):
        make()


# Chains of betas, at several lengths.


@every_schedule
def test_snr_falls_strictly_along_the_chain_and_between_its_levels(path, steps):
    schedule = load(path, steps=steps)
    for t in (indices(steps) / steps, random_times().sort().values):
        snr = schedule.at(t).snr
        assert (snr[1:] < snr[:-1]).all()


@every_schedule
def test_variance_is_preserved(path, steps):
    schedule = load(path, steps=steps)
    for t in (torch.arange(steps + 1, dtype=torch.float64) / steps, random_times()):
        _, alpha, sigma = schedule.at(t)
        assert (alpha**2 + sigma**2 - 1).abs().max() < 1e-12


@every_schedule
def test_rates_equal_central_differences_inside_each_cell(path, steps):
    schedule = load(path, steps=steps)
    middle, h = (indices(steps) - 0.5) / steps, 1e-4 / steps
    _, alpha_before, sigma_before = schedule.at(middle - h)
    _, alpha_after, sigma_after = schedule.at(middle + h)
    alpha_rate, sigma_rate = schedule.rates(middle)
    torch.testing.assert_close(alpha_rate, (alpha_after - alpha_before) / (2 * h), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(sigma_rate, (sigma_after - sigma_before) / (2 * h), rtol=1e-5, atol=1e-7)


ULP_LENGTHS = [2, 10, 50, 200, 1000]  # at T = 50, 7 / T * T exceeds 7 by the last bit


@pytest.mark.parametrize("steps", ULP_LENGTHS)
def test_rates_at_a_level_are_those_of_the_cell_that_ends_there(steps):
    schedule = CosineChain(steps)
    at_level, before = schedule.rates(indices(steps) / steps), schedule.rates((indices(steps) - 1e-6) / steps)
    torch.testing.assert_close(at_level, before, rtol=1e-4, atol=0)


@every_schedule
def test_time_inverts_log_snr(path, steps):
    schedule = load(path, steps=steps)
    for t in (indices(steps) / steps, random_times()):
        torch.testing.assert_close(schedule.time(schedule.at(t).snr.log()), t, rtol=0, atol=1e-9)


@every_schedule
def test_time_stays_within_0_and_1_beyond_the_chain(path, steps):
    schedule = load(path, steps=steps)
    beyond = torch.tensor([-torch.inf, -500.0, 500.0, torch.inf], dtype=torch.float64)
    torch.testing.assert_close(schedule.time(beyond), torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), rtol=0, atol=1e-12)


@every_schedule
def test_snap_takes_the_next_level_upwards_and_never_clean_data(path, steps):
    schedule = load(path, steps=steps)
    t = torch.cat([random_times(), torch.tensor([0.0, 1.0]).double()])
    index = np.maximum(np.ceil(t.numpy() * steps), 1)
    np.testing.assert_allclose(schedule.snap(t).t, index / steps, rtol=1e-15)


@pytest.mark.parametrize("steps", ULP_LENGTHS)
def test_snap_leaves_the_levels_of_the_chain_where_they_are(steps):
    t = indices(steps) / steps
    snapped = CosineChain(steps).snap(t)
    torch.testing.assert_close(snapped.t, t, rtol=0, atol=1e-12)
    for ours, general in zip(snapped, CosineChain(steps).at(t), strict=True):
        torch.testing.assert_close(ours, general, rtol=1e-12, atol=0)


@every_schedule
def test_label_counts_the_levels_and_previous_goes_one_down(path, steps):
    schedule = load(path, steps=steps)
    levels = schedule.at(indices(steps) / steps)
    previous = schedule.previous(levels)
    assert torch.equal(schedule.noise_label(levels), indices(steps))
    assert torch.equal(schedule.noise_label(previous), indices(steps) - 1)
    torch.testing.assert_close(previous.alpha[1:], levels.alpha[:-1], rtol=1e-13, atol=0)
    assert previous.alpha[0] == 1
    assert previous.sigma[0] == 0
    assert schedule.noise_label_range == (1.0, float(steps))


@every_schedule
def test_full_grid_visits_every_level_from_the_last_to_clean_data(path, steps):
    schedule = load(path, steps=steps)
    grid = schedule.grid(None)
    assert [round(level.t.item() * steps) for level in grid] == list(range(steps, -1, -1))
    assert all(level.t.ndim == level.alpha.ndim == level.sigma.ndim == 0 for level in grid)
    assert [level.is_clean for level in grid] == [False] * steps + [True]
    expected = schedule.at(torch.arange(steps, -1, -1, dtype=torch.float64) / steps)
    assert torch.equal(torch.stack([level.alpha for level in grid]), expected.alpha)
    assert torch.equal(torch.stack([level.sigma for level in grid]), expected.sigma)


@pytest.mark.parametrize("steps", [2, 10, 50, 200])
def test_every_shorter_grid_falls_through_distinct_levels_evenly(steps):
    schedule = CosineChain(steps)
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
    _, alpha, sigma = load(path, steps=steps).at(indices(steps) / steps)
    alpha_bar = PUBLISHED[path.stem](steps)
    np.testing.assert_allclose(alpha**2, alpha_bar, rtol=1e-9)
    np.testing.assert_allclose(sigma**2, 1 - alpha_bar, rtol=1e-9)


@pytest.mark.parametrize(
    ("preset", "make"),
    [("linear", LinearChain), ("scaled_linear", ScaledLinearChain), ("cosine", CosineChain), ("sigmoid", SigmoidChain)],
)
def test_defaults_in_code_are_the_presets_of_the_same_name(preset, make):
    assert torch.equal(make().probe().alpha, PRESETS[preset].probe().alpha)


def test_linear_at_1000_steps_is_the_table_of_ho():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(LinearChain().at(indices(1000) / 1000).alpha ** 2, alpha_bar, rtol=1e-10)


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.0])
def test_sigmoid_follows_its_temperature_and_range(tau):
    alpha = SigmoidChain(100, start=-2.0, end=4.0, tau=tau).at(indices(100) / 100).alpha
    np.testing.assert_allclose(alpha**2, published_sigmoid(100, -2.0, 4.0, tau), rtol=1e-9)


@pytest.mark.parametrize("steps", [50, 77, 200, 1000, 4096])
def test_default_linear_chain_ends_in_pure_noise_without_a_warning(steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = LinearChain(steps)
    assert schedule.at(1.0).alpha < 0.01
    assert schedule.prior_std == 1.0


@pytest.mark.parametrize(("make", "alpha"), [(LinearChain, np.exp(-10.05 / 2)), (ScaledLinearChain, None)])
def test_long_default_chains_tend_to_their_continuous_limit(make, alpha):
    if alpha is None:  # the integral of ((1 - t) sqrt(.85) + t sqrt(12))² over [0, 1]
        alpha = np.exp(-(0.85 + (0.85 * 12) ** 0.5 + 12) / 6)
    errors = [abs(make(steps).at(1.0).alpha.item() / alpha - 1) for steps in (1000, 2000, 4000)]
    assert errors[2] < 0.01
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.05)


def test_mnist_source_warns_of_the_signal_left_at_its_end():
    with pytest.warns(UserWarning, match=r"0\.132.*samples start from the wrong prior"):
        instantiate(OmegaConf.load(next(path for path in FILES if path.stem == "mnist_source")))


@pytest.mark.parametrize("path", [p for p in FILES if p.stem != "mnist_source"], ids=lambda p: p.stem)
def test_every_other_preset_ends_in_pure_noise_without_a_warning(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = instantiate(
            OmegaConf.load(path), **({"sigma_data": 2.0} if "sigma_data" in path.read_text() else {})
        )
    assert schedule.explodes or schedule.at(1.0).alpha <= 0.1


@pytest.mark.parametrize(("make", "rate", "shortest"), [(LinearChain, 20, 21), (ScaledLinearChain, 12, 13)])
def test_default_betas_refuse_chains_too_short_for_them_and_name_the_remedy(make, rate, shortest):
    for steps in range(2, shortest):
        with pytest.raises(UserError, match=rf"beta_end .*got {rate / steps:g} \(T = {steps};.*take schedule=cosine"):
            make(steps)
    assert make(shortest).steps == shortest


@pytest.mark.parametrize("steps", [-5, 0, 1])
@pytest.mark.parametrize("make", [LinearChain, ScaledLinearChain, CosineChain, SigmoidChain])
def test_fewer_than_two_steps_are_refused(make, steps):
    with pytest.raises(UserError, match=rf"at least 2 and whole, got {steps}; 200 to 1000"):
        make(steps)


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.0, 1.5, float("nan")])
def test_betas_outside_0_and_1_are_refused_with_the_value(beta):
    with pytest.raises(
        UserError,
        match=rf"strictly between 0 and 1, only the last one may be 1, got {beta:.4g} \(1 of 3 outside\); change",
    ):
        DiscreteSchedule(torch.tensor([0.1, beta, 0.2]))


@pytest.mark.parametrize("betas", [torch.tensor([0.5]), torch.tensor(0.5), torch.empty(0)])
def test_tables_of_fewer_than_two_betas_are_refused(betas):
    with pytest.raises(UserError, match=rf"at least 2 steps, got {betas.numel()}; set schedule.steps"):
        DiscreteSchedule(betas)


@pytest.mark.parametrize("ends", [{"beta_start": 0.0}, {"beta_start": -0.5}, {"beta_end": 1.0}, {"beta_end": 7.0}])
@pytest.mark.parametrize("make", [LinearChain, ScaledLinearChain])
def test_ends_of_a_beta_table_outside_0_and_1_are_refused_by_name(make, ends):
    (name, value), *_ = ends.items()
    with pytest.raises(UserError, match=rf"schedule.{name} must lie strictly between 0 and 1, got {value:g} .*give it"):
        make(100, **ends)


@pytest.mark.parametrize("steps", [-1, 0, 51, 1000])
def test_more_sampling_steps_than_levels_are_refused(steps):
    with pytest.raises(UserError, match=rf"steps = {steps} must lie in 1\.\.50.*give fewer steps, or null"):
        LinearChain(50).grid(steps)


@pytest.mark.parametrize("bad", [{"start": 3.0, "end": -3.0}, {"tau": 0.0}])
def test_sigmoid_refuses_a_rising_curve(bad):
    with pytest.raises(UserError, match="start < end and tau > 0, got"):
        SigmoidChain(10, **bad)


def test_casting_the_module_that_holds_a_schedule_keeps_its_table_in_float64():
    holder = torch.nn.Module()
    holder.schedule = LinearChain(50)
    holder.half()
    assert holder.schedule.at(0.5).alpha.dtype == torch.float64
    assert holder.schedule.at(torch.tensor(0.5)).alpha.item() == LinearChain(50).at(0.5).alpha.item()
