"""Rows of the linear system: exact targets decode exactly, and errors of the output travel by the determinant."""

import numpy as np
import pytest
import torch

from litdiffusion.errors import UserError
from litdiffusion.gaussian import diffuse
from litdiffusion.parameterizations import X0, Epsilon, PosteriorMean, V
from litdiffusion.schedules import DiscreteSchedule, cosine, linear, scaled_linear, sigmoid
from litdiffusion.types import Level

SCHEDULES = {"linear": linear(50), "scaled_linear": scaled_linear(100), "cosine": cosine(40), "sigmoid": sigmoid(20)}
ROWS = {"epsilon": lambda s: Epsilon(), "x0": lambda s: X0(), "v": lambda s: V(), "posterior_mean": PosteriorMean}
every_row = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def trained_levels(schedule):
    """Every level of the chain but clean data, one per sample, for data (T, d)."""
    return schedule.at(torch.arange(1, schedule.steps + 1, dtype=torch.float64).view(-1, 1) / schedule.steps)


def data_and_noise(schedule, size=7):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, schedule.steps, size, dtype=torch.float64, generator=generator).unbind()


@every_schedule
@every_row
def test_exact_target_decodes_to_the_data_and_the_noise_at_every_level(make, schedule):
    row, levels, (x_0, eps) = make(schedule), trained_levels(schedule), data_and_noise(schedule)
    found = row.decode(row.target(x_0, eps, levels), diffuse(x_0, eps, levels), levels)
    torch.testing.assert_close(found.x_0, x_0, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.eps, eps, rtol=0, atol=1e-10)


@every_schedule
@every_row
def test_any_output_decodes_to_a_pair_that_explains_x_t_and_the_output(make, schedule):
    row, levels, (x_t, out) = make(schedule), trained_levels(schedule), data_and_noise(schedule)
    x_0, eps, _ = row.decode(out, x_t, levels)
    scale = max(x_0.abs().max().item(), 1)
    torch.testing.assert_close(diffuse(x_0, eps, levels), x_t, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(row.target(x_0, eps, levels), out, rtol=0, atol=1e-12 * scale)


@every_schedule
def test_targets_are_the_published_formulas(schedule):
    levels, (x_0, eps) = trained_levels(schedule), data_and_noise(schedule)
    _, alpha, sigma = levels
    assert torch.equal(Epsilon().target(x_0, eps, levels), eps)
    assert torch.equal(X0().target(x_0, eps, levels), x_0)
    torch.testing.assert_close(V().target(x_0, eps, levels), alpha * eps - sigma * x_0, rtol=0, atol=1e-14)


@every_schedule
@every_row
def test_target_is_the_row_applied_to_data_and_noise(make, schedule):
    row, levels, (x_0, eps) = make(schedule), trained_levels(schedule), data_and_noise(schedule)
    a, b = row.row(levels)
    torch.testing.assert_close(row.target(x_0, eps, levels), a * x_0 + b * eps, rtol=0, atol=1e-14)


@every_schedule
def test_determinants_are_alpha_minus_sigma_one_and_minus_alpha_s_beta_over_sigma(schedule):
    levels = trained_levels(schedule)
    _, alpha, sigma = levels
    before = torch.cat([torch.ones(1, 1, dtype=torch.float64), alpha[:-1]])
    beta = 1 - (alpha / before) ** 2
    torch.testing.assert_close(Epsilon().det(levels), alpha)
    torch.testing.assert_close(X0().det(levels), -sigma)
    torch.testing.assert_close(V().det(levels), torch.ones_like(alpha))
    torch.testing.assert_close(PosteriorMean(schedule).det(levels), -before * beta / sigma, rtol=1e-9, atol=0)


@every_schedule
@every_row
def test_determinant_equals_that_of_the_two_by_two_system(make, schedule):
    row, levels = make(schedule), trained_levels(schedule)
    a, b = row.row(levels)
    system = torch.stack([torch.cat([levels.alpha, levels.sigma], 1), torch.cat([a, b], 1)], 1)
    torch.testing.assert_close(row.det(levels).view(-1), torch.linalg.det(system), rtol=1e-10, atol=1e-16)


@every_schedule
@every_row
def test_an_error_of_the_output_grows_by_sigma_and_alpha_over_the_determinant(make, schedule):
    row, levels, (x_0, eps) = make(schedule), trained_levels(schedule), data_and_noise(schedule)
    x_t, out = diffuse(x_0, eps, levels), row.target(x_0, eps, levels)
    delta = torch.full_like(out, 0.01)
    wrong, right = row.decode(out + delta, x_t, levels), row.decode(out, x_t, levels)
    det = row.det(levels).abs()
    torch.testing.assert_close((wrong.x_0 - right.x_0).abs(), levels.sigma / det * delta, rtol=1e-7, atol=1e-11)
    torch.testing.assert_close((wrong.eps - right.eps).abs(), levels.alpha / det * delta, rtol=1e-7, atol=1e-11)


def test_v_on_unscaled_levels_is_divided_by_their_radius():
    levels = Level(*(torch.tensor(v, dtype=torch.float64) for v in (0.5, 3.0, 4.0)))
    x_0, eps = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64).unbind()
    torch.testing.assert_close(V().target(x_0, eps, levels), (3 * eps - 4 * x_0) / 5, rtol=1e-14, atol=0)
    assert V().det(levels).item() == pytest.approx(5.0, rel=1e-14)


@pytest.mark.parametrize("steps", [50, 1000])
def test_posterior_mean_target_is_equation_7_of_ho(steps):
    betas = np.linspace(0.1 / steps, 20 / steps, steps)
    alpha_bar = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    schedule = linear(steps)
    levels, (x_0, eps) = trained_levels(schedule), data_and_noise(schedule, size=3)
    x_t = np.sqrt(alpha_bar)[:, None] * x_0.numpy() + np.sqrt(1 - alpha_bar)[:, None] * eps.numpy()
    mean = (np.sqrt(before) * betas / (1 - alpha_bar))[:, None] * x_0.numpy()
    mean += (np.sqrt(1 - betas) * (1 - before) / (1 - alpha_bar))[:, None] * x_t
    np.testing.assert_allclose(PosteriorMean(schedule).target(x_0, eps, levels), mean, rtol=0, atol=1e-10)


@every_schedule
def test_posterior_mean_of_the_first_step_is_the_data(schedule):
    first = schedule.at(1 / schedule.steps)
    a, b = PosteriorMean(schedule).row(first)
    assert a.item() == 1
    assert b.item() == 0


@every_schedule
@every_row
def test_every_row_accepts_the_usual_chains(make, schedule):
    make(schedule).check(schedule)
    assert make(schedule).det(trained_levels(schedule)).abs().min() > 1e-8


def without_terminal_signal(last_beta):
    return DiscreteSchedule(torch.tensor([0.1, 0.3, 0.6, last_beta], dtype=torch.float64))


def test_epsilon_refuses_a_chain_without_signal_at_its_end_and_names_v():
    with pytest.raises(UserError, match=r"Epsilon cannot be decoded at t = 1, where alpha = .*take parameterization=v"):
        Epsilon().check(without_terminal_signal(1 - 2**-53))


def test_epsilon_accepts_the_same_chain_with_a_little_signal_left():
    schedule = without_terminal_signal(1 - 1e-12)
    assert schedule.at(1.0).alpha < 1e-6
    Epsilon().check(schedule)


@pytest.mark.parametrize("make", [ROWS["x0"], ROWS["v"]], ids=["x0", "v"])
def test_x0_and_v_live_on_a_chain_without_terminal_signal(make):
    schedule = without_terminal_signal(1 - 2**-53)
    row, levels, (x_0, eps) = make(schedule), trained_levels(schedule), data_and_noise(schedule)
    row.check(schedule)
    found = row.decode(row.target(x_0, eps, levels), diffuse(x_0, eps, levels), levels)
    torch.testing.assert_close(found.x_0, x_0, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.eps, eps, rtol=0, atol=1e-10)


def test_posterior_mean_refuses_a_schedule_without_steps():
    with pytest.raises(UserError, match="needs a discrete chain, got object; take schedule=linear"):
        PosteriorMean(object())


@every_row
@pytest.mark.parametrize("shape", [(), (4, 1)], ids=["one level", "a level per sample"])
def test_float32_data_stay_float32(make, shape):
    schedule = SCHEDULES["linear"]
    row, levels = make(schedule), schedule.at(torch.full(shape, 0.4, dtype=torch.float64))
    x, y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).unbind()
    assert row.target(x, y, levels).dtype == torch.float32
    assert {part.dtype for part in row.decode(x, y, levels)[:2]} == {torch.float32}
