"""Which sampler walks which process, how often it asks the net, which levels it visits, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from analytic import double, mixture
from parts import presets

from litdiffusion.diffusion.levels import seeded_noise
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
    UniPC,
)
from litdiffusion.diffusion.samplers.grids import GRIDS, levels_for
from litdiffusion.diffusion.schedules import (
    VE,
    VP,
    CosineChain,
    GeometricLadder,
    LinearChain,
    LinearFlow,
    LinearSigma,
    SigmoidChain,
    SingleLevel,
    SubVP,
)
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import wasserstein_1d

SCHEDULES, SAMPLERS = presets("schedule"), presets("sampler")
EVERYWHERE = {"ancestral", "ddim", "euler", "heun", "dpm_solver", "sde_dpm_solver", "unipc", "predictor_corrector"}
WITH_SIGNAL = EVERYWHERE | {"euler_maruyama"}
FIT = {
    "single": {"langevin"},
    "ladder": WITH_SIGNAL | {"annealed_langevin"},
    "vp": WITH_SIGNAL | {"ode"},
    "subvp": WITH_SIGNAL | {"ode"},
    "ve": WITH_SIGNAL | {"ode", "annealed_langevin"},
    "edm": WITH_SIGNAL | {"ode", "annealed_langevin"},
    "flow": EVERYWHERE | {"ode"},
}


PAIRS = [(schedule, sampler) for schedule in SCHEDULES for sampler in SAMPLERS]
FITTING = [(schedule, sampler) for schedule, sampler in PAIRS if sampler in FIT.get(schedule, WITH_SIGNAL)]
OTHERS = [pair for pair in PAIRS if pair not in FITTING]
every_fitting_pair = pytest.mark.parametrize(("schedule", "sampler"), FITTING)


@every_fitting_pair
def test_a_sampler_that_fits_walks_to_finite_samples(schedule, sampler):
    process, walker = SCHEDULES[schedule], SAMPLERS[sampler].respaced(8)
    walker.check(process)
    x = walker.prior(process, torch.empty(16, 1, dtype=torch.float64), seeded_noise(0))
    samples = walker.sample(mixture(process), x, noise=seeded_noise(1))
    assert samples.isfinite().all()
    assert len(samples.unique()) == 16


@pytest.mark.parametrize(("schedule", "sampler"), OTHERS)
def test_any_other_sampler_is_refused_with_the_names_of_those_that_fit(schedule, sampler):
    with pytest.raises(UserError, match=f"sampler={sampler} does not fit this process: ") as refusal:
        SAMPLERS[sampler].respaced(8).check(SCHEDULES[schedule])
    named = str(refusal.value).split("take sampler=")[1].split(", ")
    assert sorted(named) == sorted(other for process, other in FITTING if process == schedule)


@every_fitting_pair
def test_calls_counts_the_calls_of_the_net(schedule, sampler):
    process, walker, asked = SCHEDULES[schedule], SAMPLERS[sampler].respaced(5), []
    denoiser = mixture(process)
    denoiser.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    states = list(walker.trajectory(denoiser, process.prior_std * double([[0.3]]), noise=torch.zeros_like))
    levels = walker.levels(process)
    assert walker.calls(process) in (len(asked), None)
    assert [state.step for state in states] == list(range(len(levels)))
    assert [tuple(state.level) for state in states] == [tuple(level) for level in levels]
    assert all(process.t_min * (1 - 1e-6) <= level.t <= 1 for level in asked)  # the net was trained on no others


def test_every_sampler_preset_has_the_name_that_refusals_give_it():
    assert {name: sampler.name for name, sampler in SAMPLERS.items()} == {name: name for name in SAMPLERS}


REFUSALS = {
    "ratio without signal": (
        lambda: Euler(5, coordinate="ratio").check(LinearFlow()),
        r"sampler.coordinate=ratio: no signal is left at t = 1 \(alpha = 0\).*take sampler.coordinate=time",
    ),
    "heun's ratio too": (lambda: Heun(5, coordinate="ratio").check(LinearFlow()), "take sampler.coordinate=time"),
    "drift without signal": (
        lambda: EulerMaruyama(5).check(LinearFlow()),
        r"no signal is left at t = 1 \(alpha = 0\), and it divides by alpha; take sampler=",
    ),
    "churn of a chain": (lambda: Heun(5, churn=1.0).check(GeometricLadder()), "take schedule=edm or ve, or churn=0"),
    "churn of vp": (lambda: Heun(5, churn=1.0).check(VP()), "needs alpha = 1 and continuous time; take"),
    "adaptive on a chain": (lambda: AdaptiveODE().check(LinearChain()), "is trained at the levels of a chain only"),
    "annealing a vp": (lambda: AnnealedLangevin().check(VP()), "it needs alpha = 1 at every level"),
    "langevin on many levels": (lambda: Langevin().check(GeometricLadder()), "it stays at one noise level"),
    "a walk of one level": (lambda: DDIM().check(SingleLevel()), "a single noise level has no steps down"),
    "too many steps": (lambda: DDIM(51).check(LinearChain(50)), r"steps = 51 must lie in 1\.\.50"),
    "too many on a grid": (lambda: UniPC(51).check(LinearChain(50)), r"steps = 51 must lie in 1\.\.50"),
    "unknown grid": (
        lambda: Euler(5, "karas").check(VP()),
        r"one of auto, uniform, quadratic, karras, log_snr, got 'karas'; did you mean karras\?",
    ),
    "unknown coordinate": (
        lambda: Euler(5, coordinate="x"),
        "coordinate must be one of time, ratio, angle, auto, got 'x'",
    ),
    "unknown method": (lambda: AdaptiveODE(method="rk4"), "method must be one of dopri5, .* got 'rk4'"),
    "no tolerance": (lambda: AdaptiveODE(rtol=0.0), "rtol and sampler.atol must be positive, got 0.0 and 0.0001"),
    "negative churn": (lambda: Heun(churn=-1.0), r"churn >= 0, .* got -1.0, 1.0, 0.0 and inf; churn=0"),
    "empty churn range": (
        lambda: Heun(churn_min=2.0, churn_max=1.0),
        "churn_min <= churn_max, got 0.0, 1.0, 2.0 and 1.0",
    ),
    "negative corrections": (lambda: PredictorCorrector(corrections=-1), "corrections >= 0 .* got -1, 0.16; usual"),
    "no snr": (lambda: PredictorCorrector(snr=0.0), "sampler.snr > 0, got 1, 0.0; usual"),
    "no langevin steps": (lambda: Langevin(0), "steps >= 1, step_size > 0 and start_std >= 0, got 0, 0.005 and 1.0"),
    "unstable annealing": (
        lambda: AnnealedLangevin(step_size=2.0),
        r"step_size in \(0, 2\) .*got 20 and 2.0; 20 and 0.1",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused_with_the_reason_and_the_remedy(make, message):
    with pytest.raises(UserError, match=message):
        make()


# Grids.

CONTINUOUS = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": LinearSigma(), "flow": LinearFlow()}
RATIOS = {name: schedule for name, schedule in CONTINUOUS.items() if name != "flow"}
every_ratio = pytest.mark.parametrize("schedule", RATIOS.values(), ids=RATIOS)
every_grid = pytest.mark.parametrize("grid", ["uniform", *GRIDS])


def ratios(levels):
    return np.array([level.ratio.item() for level in levels])


@every_ratio
@pytest.mark.parametrize("steps", [2, 18, 40])
def test_karras_grid_is_equation_5_and_its_end_clean(steps, schedule):
    found = ratios(levels_for(schedule, steps, "karras"))
    high, low = schedule.at(1.0).ratio.item(), schedule.at(schedule.t_min).ratio.item()
    place = np.arange(steps) / (steps - 1)
    expected = (high ** (1 / 7) + place * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-9)
    assert found[-1] == 0


@every_ratio
def test_log_snr_grid_is_even_in_log_snr(schedule):
    found = np.log(ratios(levels_for(schedule, 15, "log_snr"))[:-1])
    np.testing.assert_allclose(np.diff(found), (found[-1] - found[0]) / 14, rtol=1e-7)


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_quadratic_grid_is_even_in_the_root_of_time(schedule):
    roots = np.sqrt([level.t.item() for level in levels_for(schedule, 12, "quadratic")][:-1])
    np.testing.assert_allclose(roots, np.linspace(1, schedule.t_min**0.5, 12), atol=1e-12)


@pytest.mark.parametrize("grid", ["karras", "log_snr"])
def test_where_no_signal_is_left_grids_in_the_ratio_go_on_from_100(grid):
    found = ratios(levels_for(LinearFlow(), 10, grid))
    assert found[0] == np.inf
    power = (lambda r: r ** (1 / 7)) if grid == "karras" else np.log
    np.testing.assert_allclose(power(found[1:-1]), np.linspace(power(100), power(1e-4 / (1 - 1e-4)), 10)[1:], rtol=1e-9)


@every_grid
@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_every_grid_falls_strictly_from_t_1_to_clean_data(steps, schedule, grid):
    levels = levels_for(schedule, steps, grid)
    assert len(levels) == steps + 1
    assert tuple(levels[0]) == tuple(schedule.at(1.0))
    assert levels[-1].is_clean
    assert (np.diff([level.t.item() for level in levels[:-1]]) < 0).all()
    assert (np.diff([level.log_snr.item() for level in levels]) > 0).all()
    if steps > 1 and (grid != "uniform" or not schedule.loses_signal):
        assert levels[-2].t.item() == pytest.approx(schedule.t_min, rel=1e-9, abs=1e-15)


CHAINS = {
    "linear": LinearChain(50),
    "cosine": CosineChain(50),
    "sigmoid": SigmoidChain(20),
    "ladder": GeometricLadder(30),
    "long": LinearChain(),
}


@every_grid
@pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS)
def test_every_grid_of_a_chain_visits_levels_of_the_chain_each_once_for_any_number_of_steps(schedule, grid):
    length = schedule.steps
    for steps in range(1, length + 1) if length <= 50 else (7, 50, 400, 999, 1000):
        levels = levels_for(schedule, steps, grid)
        positions = np.array([level.t.item() for level in levels]) * length
        indices = np.round(positions)
        np.testing.assert_allclose(positions, indices, atol=1e-9)
        assert indices[0] == length
        assert indices[-1] == 0
        assert (np.diff(indices) < 0).all()
        chosen = schedule.snap(torch.tensor(indices[:-1] / length))
        torch.testing.assert_close(
            torch.stack([level.sigma for level in levels[:-1]]), chosen.sigma, rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("grid", list(GRIDS))
@pytest.mark.parametrize("schedule", [LinearChain(1000), GeometricLadder(1000)], ids=["linear", "ladder"])
def test_on_a_chain_a_grid_without_crowding_takes_the_nearest_levels(schedule, grid):
    wanted = GRIDS[grid](schedule, torch.linspace(0, 1, 12, dtype=torch.float64)) * 1000
    found = [level.t.item() * 1000 for level in levels_for(schedule, 12, grid)[:-1]]
    np.testing.assert_allclose(found, wanted, atol=0.5 + 1e-9)


def test_crowded_levels_move_to_the_next_noisier_ones_and_never_further():
    schedule = CosineChain(50)
    wanted = (GRIDS["log_snr"](schedule, torch.linspace(0, 1, 20, dtype=torch.float64)) * 50).round().long().tolist()
    found = [round(level.t.item() * 50) for level in levels_for(schedule, 20, "log_snr")][:-1]
    assert len(set(wanted)) < 20
    taken = []
    for ideal in reversed(wanted):  # from the clean end, each takes its level or the next that is free
        taken.append(max(ideal, taken[-1] + 1 if taken else 1))
    # Towards the noisy end the room ends: there the last ones close ranks below t = 1.
    expected = [min(index, 50 - place) for place, index in enumerate(reversed(taken))]
    assert found == expected


@pytest.mark.parametrize("make", [Ancestral, DDIM, Euler, EulerMaruyama, PredictorCorrector])
def test_default_grid_is_uniform_that_of_multistep_methods_even_in_log_snr_and_that_of_heun_auto(make):
    assert make().grid == "uniform"
    assert {DPMSolver2M().grid, UniPC().grid} == {"log_snr"}
    assert Heun().grid == "auto"
    times = [level.t.item() for level in make(10).levels(VP())]
    np.testing.assert_allclose(times[:-1], np.linspace(1, 1e-3, 10), atol=1e-12)


@every_fitting_pair
def test_every_preset_draws_the_data_from_every_process_that_fits(schedule, sampler):
    """The yaml's own settings with the exact denoiser: W1 to a mixture of deviation 1.07, of which 0.06 is chance."""
    if schedule in ("single", "mnist_source"):
        pytest.skip("does not start or end at what the mixture is compared with")
    process, walk = SCHEDULES[schedule], copy.copy(SAMPLERS[sampler])
    if sampler == "annealed_langevin" and process.steps is None:
        walk.inner_steps = 4
    noise = seeded_noise(3)
    x = walk.sample(mixture(process), walk.prior(process, torch.empty(400, 1).double(), noise), noise=noise)
    places = (torch.arange(20_000).double() + 0.5) / 20_000
    grid = torch.linspace(-6, 6, 4001).double()
    shares = 0.4 * torch.special.ndtr((grid + 1) / 0.5) + 0.6 * torch.special.ndtr((grid - 0.8) / 0.7)
    data = torch.from_numpy(np.interp(places.numpy(), shares.numpy(), grid.numpy()))
    assert wasserstein_1d(x, data) < 0.15


def test_a_flow_too_stiff_for_its_tolerance_ends_in_one_line_with_another_sampler(monkeypatch):
    monkeypatch.setattr("litdiffusion.diffusion.solver.MOST_STEPS", 3)
    with pytest.raises(UserError, match=r"cannot be solved to rtol=1e-08, .*; loosen them, or take sampler=unipc"):
        AdaptiveODE(2, rtol=1e-8, atol=1e-8).sample(mixture(VP()), torch.zeros(2, 1).double())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_auto_grid_is_the_one_that_suits_the_schedule(schedule):
    process = SCHEDULES[schedule]
    if process.steps == 1:
        pytest.skip("a single level has no grid")
    expected = "uniform" if isinstance(process, LinearFlow) else "karras" if process.explodes else "quadratic"
    assert levels_for(process, 5, "auto") == levels_for(process, 5, expected)


@pytest.mark.parametrize(
    "schedule", [n for n, s in SCHEDULES.items() if s.steps != 1 and not s.explodes and not isinstance(s, LinearFlow)]
)
def test_the_auto_grid_solves_the_flow_best_in_few_steps(schedule):
    process = SCHEDULES[schedule]
    denoiser, start = mixture(process), process.prior_std * double(np.linspace(-2.5, 2.5, 200))[:, None]
    reference = Heun(200, "auto", "angle").sample(denoiser, start)
    ends = {grid: Heun(10, grid, "angle").sample(denoiser, start) for grid in ("uniform", *GRIDS)}
    assert min(ends, key=lambda grid: (ends[grid] - reference).abs().mean()) == "quadratic"
