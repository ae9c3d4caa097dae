"""Every sampler on every process converges at its stated order: the flow to a reference, the noise to exact moments."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic import (
    CONTINUOUS,
    GRIDS,
    MEAN,
    PROCESSES,
    STD,
    flow_to,
    flowed,
    marginal,
    mixture,
    moments,
    starts,
)

from litdiffusion.diffusion.levels import per_sample_noise, seeded_noise
from litdiffusion.diffusion.samplers import (
    DDIM,
    AdaptiveODE,
    Ancestral,
    AnnealedLangevin,
    DPMSolver2M,
    Euler,
    EulerMaruyama,
    Heun,
    Langevin,
    PredictorCorrector,
    SDEDPMSolver2M,
    UniPC,
)
from litdiffusion.diffusion.schedules import GeometricLadder, LinearChain, SingleLevel

every_process = pytest.mark.parametrize("name", PROCESSES)
every_continuous = pytest.mark.parametrize("name", CONTINUOUS)


def orders(errors):
    """Measured at each doubling of the steps."""
    errors = np.abs(errors)
    return np.log2(errors[:-1] / errors[1:])


# Without noise. All methods end with the denoiser's x_0 from the last level, and so does the reference.

METHODS = {
    "euler": (lambda n, grid: Euler(n, grid, "time"), 1),
    "euler_angle": (lambda n, grid: Euler(n, grid, "angle"), 1),
    "ddim": (lambda n, grid: DDIM(n, grid=grid), 1),
    "heun": (lambda n, grid: Heun(n, grid, "time"), 2),
    "heun_ratio": (lambda n, grid: Heun(n, grid, "ratio"), 2),
    "heun_angle": (lambda n, grid: Heun(n, grid, "angle"), 2),
    "dpm_solver": (DPMSolver2M, 2),
    "unipc": (UniPC, 3),
}
LEFT_OUT = {
    ("flow", "heun_ratio"),  # no sigma / alpha at t = 1
    ("linear", "heun"),  # along time a chain's rates jump: see the test of 1 / T below
    ("ladder", "heun"),
}
STEPS = {
    ("linear", "dpm_solver"): (128, 256),
    # The first step of the straight path, from sigma / alpha = inf to 100, does not shrink with the others. It leaves
    # 5e-5 in the one method that holds x_0 there and is as exact as that elsewhere.
    ("flow", "dpm_solver"): (32, 64),
}
CASES = [(name, method) for name in PROCESSES for method in METHODS if (name, method) not in LEFT_OUT]


def flow_errors(name, make, steps, grid):
    schedule, exact = PROCESSES[name], flowed(name)[1]
    walks = (make(n, grid).sample(mixture(schedule), starts(schedule)) for n in steps)
    return np.array([(x - exact).abs().max().item() for x in walks])


@pytest.mark.parametrize(("name", "method"), CASES)
def test_error_against_the_exact_flow_falls_at_the_stated_order(name, method):
    make, order = METHODS[method]
    errors = flow_errors(name, make, STEPS.get((name, method), (64, 128)), GRIDS[name])
    np.testing.assert_allclose(orders(errors), order, atol=0.15)
    assert errors[-1] < {1: 0.2, 2: 1e-2, 3: 2e-4}[order]


@pytest.mark.parametrize("name", ["vp", "subvp"])
@pytest.mark.parametrize("coordinate", ["time", "ratio", "angle"])
def test_heun_is_of_order_2_on_uniform_grids_too_as_times_stop_before_the_singularity_at_0(name, coordinate):
    # At t = 0 itself sigma' of VP is infinite, as 1 / sqrt(t); from t_min = 1e-3 on it is smooth.
    errors = flow_errors(name, lambda n, grid: Heun(n, grid, coordinate), (64, 128), "uniform")
    np.testing.assert_allclose(orders(errors), 2, atol=0.15)


def test_unipc_is_of_order_2_only_on_a_uniform_grid_of_the_straight_path():
    schedule, errors = PROCESSES["flow"], []
    for n in (32, 64, 128):
        exact = flow_to(schedule, schedule.grid(n)[-2])[1]  # such a grid ends with the jump from t = 1 / n
        errors.append((UniPC(n, "uniform").sample(mixture(schedule), starts(schedule)) - exact).abs().max().item())
    np.testing.assert_allclose(orders(errors), 2, atol=0.15)


@pytest.mark.parametrize("make", [LinearChain, lambda n: GeometricLadder(n, 0.01, 10.0)], ids=["linear", "ladder"])
def test_heun_along_the_time_of_a_chain_keeps_an_error_of_order_1_over_its_length(make):
    def gap(length):
        schedule = make(length)
        walks = (Heun(32, "uniform", axis).sample(mixture(schedule), starts(schedule)) for axis in ("time", "angle"))
        return next(walks) - next(walks)

    short, middle, long = gap(2048), gap(4096), gap(8192)
    np.testing.assert_allclose((short - middle) / (middle - long), 2, atol=0.01)


@every_continuous
def test_error_of_the_adaptive_solver_stays_below_20_times_its_tolerance(name):
    schedule, exact = PROCESSES[name], flowed(name)[1]
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = AdaptiveODE(1, tolerance, tolerance).sample(mixture(schedule), starts(schedule))
        assert (found - exact).abs().max() < 20 * tolerance


@pytest.mark.parametrize("name", ["vp", "flow"])
@pytest.mark.parametrize("method", ["dopri8", "bosh3", "adaptive_heun"])
def test_every_other_method_of_the_adaptive_solver_keeps_its_tolerance_too(name, method):
    schedule, exact = PROCESSES[name], flowed(name)[1]
    found = AdaptiveODE(1, 1e-4, 1e-4, method).sample(mixture(schedule), starts(schedule))
    assert (found - exact).abs().max() < 2e-4


@every_continuous
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_that_the_adaptive_solver_shows_lie_on_the_flow(name, dtype):
    schedule = PROCESSES[name]
    states = list(AdaptiveODE(6, 1e-6, 1e-6).trajectory(mixture(schedule), starts(schedule).to(dtype)))
    assert [state.level.t for state in states] == [level.t for level in schedule.grid(6)]
    for state in (states[1], states[3]):
        torch.testing.assert_close(state.x.double(), flow_to(schedule, state.level)[0], rtol=5e-5, atol=5e-5)
    torch.testing.assert_close(states[-1].x.double(), flowed(name)[1], rtol=5e-5, atol=5e-5)
    assert {state.x.dtype for state in states} == {dtype}


def test_the_adaptive_solver_shows_states_cleaner_than_the_first_trained_time_too():
    schedule = type(PROCESSES["flow"])(t_min=0.1)
    states = list(AdaptiveODE(20, 1e-6, 1e-6).trajectory(mixture(schedule), starts(schedule)))
    assert len(states) == 21
    for state in (states[-3], states[-2]):
        torch.testing.assert_close(state.x, flow_to(schedule, state.level)[0], rtol=5e-5, atol=5e-5)


# Methods that are one method.

SAME = {
    "dpm_solver without a past is ddim": (DPMSolver2M(2), DDIM(2, grid="log_snr")),
    "sde_dpm_solver without a past is ancestral": (SDEDPMSolver2M(2), Ancestral(2, grid="log_snr")),
    "no corrections is ancestral": (PredictorCorrector(9, corrections=0), Ancestral(9, "forward")),
    "no churn is heun": (Heun(5), Heun(5, churn=0.0, churn_noise=2.0)),
}


@every_process
@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_special_cases_walk_the_same_way(one, other, name):
    schedule = PROCESSES[name]
    walks = [s.trajectory(mixture(schedule), starts(schedule), noise=seeded_noise(1)) for s in (one, other)]
    for ours, theirs in zip(*walks, strict=True):
        torch.testing.assert_close(ours.x, theirs.x, rtol=1e-9, atol=1e-9)


STRAIGHT = [("edm", "time"), ("flow", "time")]
IN_RATIO = [(name, "ratio") for name in PROCESSES if name != "flow"]


@pytest.mark.parametrize(("name", "coordinate"), STRAIGHT + IN_RATIO)
def test_euler_is_ddim_where_sigma_over_alpha_is_its_coordinate_or_the_path_is_straight(name, coordinate):
    schedule = PROCESSES[name]
    euler = Euler(12, coordinate=coordinate).trajectory(mixture(schedule), starts(schedule))
    for ours, theirs in zip(euler, DDIM(12).trajectory(mixture(schedule), starts(schedule)), strict=True):
        torch.testing.assert_close(ours.x, theirs.x, rtol=1e-9, atol=1e-9)


# With noise: from the exact law at t = 1 the samples' moments must tend to those of x_0 at the last level.


def moment_errors(name, make, steps):
    """(mean, variance) of the samples less the exact ones, one row for each number of steps."""
    schedule = PROCESSES[name]
    last = schedule.at(schedule.t_min)
    exact = MEAN, (last.alpha**2 * STD**4).item() / marginal(last)[1]
    found = [moments(make(n, GRIDS[name]), schedule, *marginal(schedule.at(1.0)), draws=2 * n) for n in steps]
    return np.array(found) - exact


NOISY = {
    "ancestral": (lambda n, grid: Ancestral(n, "posterior", grid), 1),
    "ancestral_forward": (lambda n, grid: Ancestral(n, "forward", grid), 1),
    "ddim": (lambda n, grid: DDIM(n, 0.5, grid), 1),
    "sde_dpm_solver": (SDEDPMSolver2M, 2),
}


@every_process
@pytest.mark.parametrize(("make", "order"), NOISY.values(), ids=NOISY)
def test_variance_of_the_samples_tends_to_the_data_s_at_the_stated_order_and_the_mean_is_exact(make, order, name):
    errors = moment_errors(name, make, (64, 128))
    np.testing.assert_allclose(orders(errors[:, 1]), order, atol=0.2)
    assert abs(errors[-1, 1]) < {1: 0.05, 2: 2e-3}[order]
    np.testing.assert_allclose(errors[:, 0], 0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "vp", "subvp", "edm"])
def test_euler_maruyama_is_of_weak_order_1(name):
    errors = moment_errors(name, EulerMaruyama, (64, 128))
    np.testing.assert_allclose(orders(errors[:, 1]), 1, atol=0.15)
    if not PROCESSES[name].explodes:  # where alpha = 1 the mean is exact
        np.testing.assert_allclose(orders(errors[:, 0]), 1, atol=0.15)


@pytest.mark.parametrize("name", ["ladder", "ve"])
def test_euler_maruyama_happens_to_do_better_where_sigma_grows_geometrically(name):
    errors = moment_errors(name, EulerMaruyama, (32, 64))
    assert orders(errors[:, 1]) > 1.8
    np.testing.assert_allclose(errors[:, 0], 0, atol=1e-12)


@every_process
def test_corrections_lower_the_error_of_few_steps_and_leave_the_bias_of_langevin_steps_with_many(name):
    """A Langevin step h = 2 (snr s)² on N(0, s²) has the stationary variance s² / (1 - snr²)."""
    without, errors = (moment_errors(name, make, (16, 128)) for make in (uncorrected, PredictorCorrector))
    assert abs(errors[0, 1]) < 0.9 * abs(without[0, 1])
    assert errors[1, 1] == pytest.approx(STD**2 * 0.16**2, rel=0.25)
    np.testing.assert_allclose(errors[:, 0], 0, atol=1e-9)


def uncorrected(steps, grid):
    return PredictorCorrector(steps, grid, corrections=0)


def paper(schedule, denoiser, x, steps, noise, snr=0.16):
    """Algorithms 4 and 5 of Song et al. (2020), the norms over the batch."""
    levels = schedule.grid(steps)
    for now, after in pairwise(levels[:-1]):
        alpha_i = (now.alpha / after.alpha) ** 2
        variance = now.sigma**2 - alpha_i * after.sigma**2
        score = -denoiser(x, now).eps / now.sigma
        x = (x + variance * score) / alpha_i.sqrt() + variance.sqrt() * noise(x)
        score, z = -denoiser(x, after).eps / after.sigma, noise(x)
        step = 2 * alpha_i * (snr * z.norm() / score.norm()) ** 2
        x = x + step * score + (2 * step).sqrt() * z
    return denoiser(x, levels[-2]).x_0


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_the_corrector_s_step_is_the_paper_s_ratio_up_to_the_pilot_s_chance(name):
    """The same noise on 2000 samples of the mixture; the old step, with sigma for |z| / |score|, is far from it."""
    schedule = PROCESSES[name]
    denoiser, start = mixture(schedule), schedule.prior_std * seeded_noise(1)(torch.empty(2000, 1).double())
    expected = paper(schedule, denoiser, start, 60, seeded_noise(2))
    found = PredictorCorrector(60).sample(denoiser, start, noise=seeded_noise(2))
    gap = (found - expected).std() / expected.std()
    assert gap < 0.12
    plain = uncorrected(60, "uniform").sample(denoiser, start, noise=seeded_noise(2))
    assert (plain - expected).std() / expected.std() > 3 * gap


def test_a_corrected_sample_does_not_depend_on_its_batch():
    schedule = PROCESSES["vp"]
    denoiser, x = mixture(schedule), schedule.prior_std * seeded_noise(1)(torch.empty(9, 1).double())
    sampler = PredictorCorrector(8)
    whole = sampler.sample(denoiser, x, noise=per_sample_noise(list(range(9))))
    parts = [sampler.sample(denoiser, x[i : i + 3], noise=per_sample_noise([i, i + 1, i + 2])) for i in (0, 3, 6)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "coordinate"), [("ve", "angle"), ("edm", "angle"), ("edm", "time")])
def test_heun_with_churn_keeps_the_moments_at_order_2(name, coordinate):
    errors = moment_errors(name, lambda n, grid: Heun(n, grid, coordinate, churn=8.0), (64, 128))
    np.testing.assert_allclose(orders(errors[:, 1]), 2, atol=0.15)
    np.testing.assert_allclose(errors[:, 0], 0, atol=2e-3)


def test_churn_stays_within_its_range_of_sigma_and_scales_its_noise():
    schedule, start = PROCESSES["edm"], marginal(PROCESSES["edm"].at(1.0))

    def variance(**settings):
        return moments(Heun(32, "karras", **settings), schedule, *start, draws=64)[1]

    assert variance(churn=8.0, churn_min=100.0) == variance()
    assert variance(churn=8.0, churn_max=0.001) == variance()
    assert variance(churn=8.0, churn_noise=1.2) > variance(churn=8.0) + 0.01


# Langevin dynamics: one affine map, again and again.


@pytest.mark.parametrize("step_size", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("count", [3, 200])
def test_langevin_follows_its_recursion_to_the_stationary_variance(step_size, count):
    schedule = SingleLevel(0.3)
    s2 = STD**2 + 0.3**2  # the data blurred by the one noise level
    found = moments(Langevin(count, step_size), schedule, 0.0, 4.0, draws=count)
    kept = 1 - step_size / s2
    stationary = s2 / (1 - step_size / (2 * s2))
    assert found[0] == pytest.approx(MEAN * (1 - kept**count), rel=1e-9)
    assert found[1] == pytest.approx(stationary + kept ** (2 * count) * (4.0 - stationary), rel=1e-9)


def test_langevin_forgets_its_start_and_misses_the_law_by_its_step_only():
    s2 = STD**2 + 0.3**2
    mean, variance = moments(Langevin(400, 0.05), SingleLevel(0.3), 0.0, 4.0, draws=400)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert variance == pytest.approx(s2 / (1 - 0.05 / (2 * s2)), rel=1e-12)


def annealed(sigmas, inner_steps, step_size, denoise):
    """Mean and variance after all rungs, by the scalar recursion of each."""
    mean, variance = 0.0, sigmas[0] ** 2
    for sigma in sigmas:
        s2, h = STD**2 + sigma**2, step_size * sigma**2
        for _ in range(inner_steps):
            mean, variance = MEAN + (1 - h / s2) * (mean - MEAN), (1 - h / s2) ** 2 * variance + 2 * h
    gain = STD**2 / (STD**2 + sigmas[-1] ** 2) if denoise else 1.0
    return MEAN + gain * (mean - MEAN), gain**2 * variance


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize(("rungs", "inner_steps", "step_size"), [(10, 20, 0.1), (5, 7, 1.2)])
def test_annealed_langevin_ends_at_the_mean_and_variance_of_its_recursion(rungs, inner_steps, step_size, denoise):
    schedule = GeometricLadder(rungs, 0.2, 8.0)
    sampler = AnnealedLangevin(inner_steps=inner_steps, step_size=step_size, denoise=denoise)
    found = moments(sampler, schedule, 0.0, 64.0, draws=rungs * inner_steps)
    expected = annealed(np.geomspace(8.0, 0.2, rungs), inner_steps, step_size, denoise)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_annealed_langevin_with_small_steps_ends_at_the_blurred_data():
    found = annealed(np.geomspace(8.0, 0.2, 10), 20000, 1e-3, denoise=False)
    np.testing.assert_allclose(found, (MEAN, STD**2 + 0.2**2), rtol=1e-3)
