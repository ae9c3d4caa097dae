"""Every sampler on every process converges at its stated order: the flow to a reference, the noise to exact moments."""

import numpy as np
import pytest
import torch
from analytic import CONTINUOUS, GRIDS, MEAN, PROCESSES, STD, double, flow_to, flowed, gaussian, marginal, mixture, moments, starts

from litdiffusion.samplers import (
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
from litdiffusion.schedules import VP, LinearFlow, ladder, linear, single
from litdiffusion.types import seeded_noise

every_process = pytest.mark.parametrize("name", PROCESSES)
every_continuous = pytest.mark.parametrize("name", CONTINUOUS)


def slopes(errors):
    """The measured order at each doubling of the steps."""
    errors = np.abs(errors)
    return np.log2(errors[:-1] / errors[1:])


# Without noise. All methods end with the denoiser's x_0 from the last level, and so does the reference.

METHODS = {
    "euler": (lambda n, grid: Euler(n, grid), 1),
    "euler_ratio": (lambda n, grid: Euler(n, grid, "ratio"), 1),
    "euler_angle": (lambda n, grid: Euler(n, grid, "angle"), 1),
    "ddim": (lambda n, grid: DDIM(n, grid=grid), 1),
    "heun": (lambda n, grid: Heun(n, grid), 2),
    "heun_ratio": (lambda n, grid: Heun(n, grid, "ratio"), 2),
    "heun_angle": (lambda n, grid: Heun(n, grid, "angle"), 2),
    "dpm_solver": (DPMSolver2M, 2),
    "unipc": (UniPC, 3),
}
UNFIT = {
    ("flow", "euler_ratio"),  # no sigma / alpha at t = 1
    ("flow", "heun_ratio"),
    ("linear", "heun"),  # along time a chain's rates jump: see the test of 1 / T below
    ("ladder", "heun"),
}
# The first step of the straight path, from sigma / alpha = inf to 100, does not shrink with the others. Two orders of
# magnitude below the error of 64 steps it shows in the one method that holds x_0 there and is this exact elsewhere.
STEPS = {("flow", "dpm_solver"): (16, 32, 64)}
ORDERS = [(name, method) for name in PROCESSES for method in METHODS if (name, method) not in UNFIT]


def flow_errors(name, make, steps, grid):
    schedule = PROCESSES[name]
    exact = flowed(name)[1]
    walks = (make(n, grid).sample(mixture(schedule), starts(schedule)) for n in steps)
    return np.array([(x - exact).abs().max().item() for x in walks])


@pytest.mark.parametrize(("name", "method"), ORDERS)
def test_error_against_the_exact_flow_falls_at_the_stated_order(name, method):
    make, order = METHODS[method]
    errors = flow_errors(name, make, STEPS.get((name, method), (64, 128, 256)), GRIDS[name])
    np.testing.assert_allclose(slopes(errors)[-1], order, atol=0.15)
    np.testing.assert_allclose(slopes(errors)[0], order, atol=0.2)
    assert errors[-1] < {1: 0.1, 2: 6e-3, 3: 2e-5}[order]


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_second_order_holds_on_uniform_grids_too_where_the_first_trained_time_is_no_singularity(name):
    # At t = 0 itself sigma' of VP is infinite, as 1 / sqrt(t); from t_min = 1e-3 on 64 steps are enough.
    for coordinate in ("time", "ratio", "angle"):
        errors = flow_errors(name, lambda n, grid, c=coordinate: Heun(n, grid, c), (128, 256), "uniform")
        np.testing.assert_allclose(slopes(errors), 2, atol=0.15)


def test_unipc_is_of_order_2_only_on_a_uniform_grid_of_the_straight_path():
    schedule, errors = PROCESSES["flow"], []
    for n in (32, 64, 128):
        exact = flow_to(schedule, schedule.grid(n)[-2])[1]  # such a grid ends with the jump from t = 1 / n
        errors.append((UniPC(n, "uniform").sample(mixture(schedule), starts(schedule)) - exact).abs().max().item())
    np.testing.assert_allclose(slopes(errors), 2, atol=0.15)


@pytest.mark.parametrize(("make", "grid"), [(linear, "quadratic"), (lambda n: ladder(n, 0.01, 10.0), "log_snr")])
def test_heun_along_the_time_of_a_chain_keeps_an_error_of_order_1_over_its_length(make, grid):
    def gap(length):
        schedule = make(length)
        time, angle = (Heun(64, grid, axis).sample(mixture(schedule), starts(schedule)) for axis in ("time", "angle"))
        return time - angle

    short, middle, long = gap(4096), gap(8192), gap(16384)
    assert ((short - middle) / (middle - long)).abs().min() == pytest.approx(2, abs=0.1)
    assert ((short - middle) / (middle - long)).abs().max() == pytest.approx(2, abs=0.1)


@every_continuous
def test_error_of_the_adaptive_solver_stays_below_thirty_times_its_tolerance(name):
    schedule, exact = PROCESSES[name], flowed(name)[1]
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = AdaptiveODE(1, tolerance, tolerance).sample(mixture(schedule), starts(schedule))
        print(name, tolerance, ((found - exact).abs().max()/tolerance).item())
        assert (found - exact).abs().max() < 30 * tolerance


@every_continuous
@pytest.mark.parametrize("method", ["dopri8", "bosh3", "fehlberg2", "adaptive_heun"])
def test_every_method_of_the_adaptive_solver_finds_the_same_flow(name, method):
    schedule, exact = PROCESSES[name], flowed(name)[1]
    found = AdaptiveODE(4, 1e-4, 1e-4, method).sample(mixture(schedule), starts(schedule))
    print(name, method, (found - exact).abs().max().item())
    assert (found - exact).abs().max() < 5e-3


@every_continuous
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_that_the_adaptive_solver_shows_lie_on_the_flow(name, dtype):
    schedule = PROCESSES[name]
    states = list(AdaptiveODE(6, 1e-6, 1e-6).trajectory(mixture(schedule), starts(schedule).to(dtype)))
    assert [state.level.t for state in states] == [level.t for level in schedule.grid(6)]
    for state in states[1:-1:2]:
        exact = flow_to(schedule, state.level)[0]
        torch.testing.assert_close(state.x.double(), exact, rtol=5e-5, atol=5e-5)
    assert {state.x.dtype for state in states} == {dtype}
