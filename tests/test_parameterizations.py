"""Rows of the linear system: exact targets decode exactly, and errors of the output travel by the determinant."""

import numpy as np
import pytest
import torch
from parts import CONTINUOUS, ROWS, SIGMA_DATA

from litdiffusion.diffusion.denoisers import Denoiser, GaussianMixtureDenoiser
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.parameterizations import EDM, X0, Epsilon, Flow, PosteriorMean, Score, V
from litdiffusion.diffusion.schedules import (
    VE,
    VP,
    CosineChain,
    DiscreteSchedule,
    GeometricLadder,
    LinearChain,
    LinearFlow,
    LinearSigma,
    ScaledLinearChain,
    SigmoidChain,
    SingleLevel,
)
from litdiffusion.errors import UserError

BETAS = {
    "linear": LinearChain(50),
    "scaled_linear": ScaledLinearChain(100),
    "cosine": CosineChain(40),
    "sigmoid": SigmoidChain(20),
}
CHAINS = BETAS | {"ladder": GeometricLadder(30), "single": SingleLevel(0.3)}
SCHEDULES = CHAINS | CONTINUOUS
REFUSED = {("epsilon", "flow"), ("score", "flow"), *(("posterior_mean", name) for name in CONTINUOUS)}
FITS = [(row, name) for row in ROWS for name in SCHEDULES if (row, name) not in REFUSED]

every_row = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
every_beta_chain = pytest.mark.parametrize("schedule", BETAS.values(), ids=BETAS)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_fit = pytest.mark.parametrize(
    ("make", "schedule"), [(ROWS[row], SCHEDULES[name]) for row, name in FITS], ids=["-".join(fit) for fit in FITS]
)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def trained_levels(schedule):
    """Every level that stands for those trained on, one per sample, for data (n, d)."""
    return schedule.at(schedule.probe().t.view(-1, 1))


def data_and_noise(levels, size=7):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, len(levels.t), size, dtype=torch.float64, generator=generator).unbind()


@every_fit
def test_exact_target_decodes_to_the_data_and_the_noise_at_every_level(make, schedule):
    row, levels = make(schedule), trained_levels(schedule)
    x_0, eps = data_and_noise(levels)
    found = row.decode(row.target(x_0, eps, levels), diffuse(x_0, eps, levels), levels)
    torch.testing.assert_close(found.x_0, x_0, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.eps, eps, rtol=0, atol=1e-10)


@every_fit
def test_any_output_decodes_to_a_pair_that_explains_x_t_and_the_output(make, schedule):
    row, levels = make(schedule), trained_levels(schedule)
    x_t, out = data_and_noise(levels)
    x_0, eps, _ = row.decode(out, x_t, levels)
    a, b = row.row(levels)
    # As exact as the terms that are added up are large.
    scale = (1 + x_0.abs() + eps.abs()) * (1 + a.abs() + b.abs() + levels.alpha + levels.sigma)
    assert ((diffuse(x_0, eps, levels) - x_t).abs() < 1e-13 * scale).all()
    assert ((row.target(x_0, eps, levels) - out).abs() < 1e-13 * scale).all()


@every_beta_chain
def test_targets_are_the_published_formulas(schedule):
    levels = trained_levels(schedule)
    x_0, eps = data_and_noise(levels)
    _, alpha, sigma = levels
    assert torch.equal(Epsilon().target(x_0, eps, levels), eps)
    assert torch.equal(X0().target(x_0, eps, levels), x_0)
    torch.testing.assert_close(V().target(x_0, eps, levels), alpha * eps - sigma * x_0, rtol=0, atol=1e-14)


@every_fit
def test_target_is_the_row_applied_to_data_and_noise(make, schedule):
    row, levels = make(schedule), trained_levels(schedule)
    x_0, eps = data_and_noise(levels)
    a, b = row.row(levels)
    torch.testing.assert_close(row.target(x_0, eps, levels), a * x_0 + b * eps, rtol=0, atol=1e-14)


@every_schedule
def test_determinants_are_their_closed_forms(schedule):
    levels = trained_levels(schedule)
    _, alpha, sigma = levels
    radius = (alpha**2 + sigma**2).sqrt()
    alpha_rate, sigma_rate = schedule.rates(levels.t)
    torch.testing.assert_close(Epsilon().det(levels), alpha)
    torch.testing.assert_close(X0().det(levels), -sigma)
    torch.testing.assert_close(V().det(levels), radius)
    torch.testing.assert_close(Score().det(levels), -alpha / sigma)
    torch.testing.assert_close(Flow(schedule).det(levels), alpha * sigma_rate - sigma * alpha_rate)
    torch.testing.assert_close(EDM(1.0).det(levels), -radius)
    expected = -(SIGMA_DATA**2 * alpha**2 + sigma**2).sqrt() / SIGMA_DATA
    torch.testing.assert_close(EDM(SIGMA_DATA).det(levels), expected)


@every_beta_chain
def test_determinant_of_the_posterior_mean_is_minus_alpha_s_beta_over_sigma(schedule):
    _, alpha, sigma = levels = trained_levels(schedule)
    before = torch.cat([torch.ones(1, 1, dtype=torch.float64), alpha[:-1]])
    beta = 1 - (alpha / before) ** 2
    torch.testing.assert_close(PosteriorMean(schedule).det(levels), -before * beta / sigma, rtol=1e-9, atol=0)


@every_fit
def test_determinant_equals_that_of_the_two_by_two_system(make, schedule):
    row, levels = make(schedule), trained_levels(schedule)
    a, b = row.row(levels)
    system = torch.stack([torch.cat([levels.alpha, levels.sigma], 1), torch.cat([a, b], 1)], 1)
    torch.testing.assert_close(row.det(levels).view(-1), torch.linalg.det(system), rtol=1e-10, atol=1e-16)


@every_fit
def test_an_error_of_the_output_grows_by_sigma_and_alpha_over_the_determinant(make, schedule):
    row, levels = make(schedule), trained_levels(schedule)
    x_0, eps = data_and_noise(levels)
    x_t, out = diffuse(x_0, eps, levels), row.target(x_0, eps, levels)
    delta = torch.full_like(out, 0.01)
    wrong, right = row.decode(out + delta, x_t, levels), row.decode(out, x_t, levels)
    det = row.det(levels).abs()
    torch.testing.assert_close((wrong.x_0 - right.x_0).abs(), levels.sigma / det * delta, rtol=1e-7, atol=1e-11)
    torch.testing.assert_close((wrong.eps - right.eps).abs(), levels.alpha / det * delta, rtol=1e-7, atol=1e-11)


@every_schedule
def test_the_error_of_one_row_s_output_is_that_of_any_other_s_by_their_determinants(schedule):
    """|Δeps| = alpha / |det| * |Δout| in all rows, hence |Δout| / |det| is the same in all of them."""
    levels = trained_levels(schedule)
    x_0, eps = data_and_noise(levels)
    x_t = diffuse(x_0, eps, levels)
    name = next(name for name, other in SCHEDULES.items() if other is schedule)
    rows = [make(schedule) for row, make in ROWS.items() if (row, name) not in REFUSED]
    assert len(rows) >= 4
    for one in rows:
        exact = one.target(x_0, eps, levels)
        guess = one.decode(exact + 0.5 * exact.abs().amax(1, keepdim=True), x_t, levels)
        error = (one.target(*guess[:2], levels) - exact).abs() / one.det(levels).abs()
        for other in rows:
            change = (other.target(*guess[:2], levels) - other.target(x_0, eps, levels)).abs()
            torch.testing.assert_close(change / other.det(levels).abs(), error, rtol=1e-6, atol=1e-9)


@every_schedule
def test_score_is_the_gradient_of_the_log_density(schedule):
    levels, mean, std = trained_levels(schedule), 1.3, 0.6
    x_t = (data_and_noise(levels, 1)[0] * 2).requires_grad_()
    noised = torch.distributions.Normal(levels.alpha * mean, (levels.alpha**2 * std**2 + levels.sigma**2).sqrt())
    (gradient,) = torch.autograd.grad(noised.log_prob(x_t).sum(), x_t)
    denoiser = GaussianMixtureDenoiser(schedule, double([1.0]), double([[mean]]), double([[std]]))
    expected = denoiser(x_t.detach(), levels)
    torch.testing.assert_close(Score().target(expected.x_0, expected.eps, levels), gradient, rtol=1e-7, atol=1e-9)


@every_schedule
def test_flow_is_the_derivative_of_the_path(schedule):
    t, h = 0.999 * schedule.probe().t.view(-1, 1), 1e-6  # inside the cells of a chain
    levels = schedule.at(t)
    x_0, eps = data_and_noise(levels)
    difference = (diffuse(x_0, eps, schedule.at(t + h)) - diffuse(x_0, eps, schedule.at(t - h))) / (2 * h)
    torch.testing.assert_close(Flow(schedule).target(x_0, eps, levels), difference, rtol=1e-5, atol=1e-5)


def test_flow_of_the_straight_path_is_noise_less_data():
    levels = trained_levels(LinearFlow())
    x_0, eps = data_and_noise(levels)
    torch.testing.assert_close(Flow(LinearFlow()).target(x_0, eps, levels), eps - x_0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("schedule", [LinearSigma(), VE(), GeometricLadder()], ids=["edm", "ve", "ladder"])
def test_edm_is_karras_table_1_where_alpha_is_1(schedule):
    levels = trained_levels(schedule)
    x_0, eps = data_and_noise(levels)
    sigma, s = levels.sigma, SIGMA_DATA
    c_skip = s**2 / (sigma**2 + s**2)
    c_out = sigma * s / (sigma**2 + s**2).sqrt()
    c_in = 1 / (sigma**2 + s**2).sqrt()
    x_t = diffuse(x_0, eps, levels)
    row = EDM(s)
    torch.testing.assert_close(row.target(x_0, eps, levels), (x_0 - c_skip * x_t) / c_out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(row.input_scale(levels), c_in, rtol=1e-13, atol=0)
    out = eps * x_0
    torch.testing.assert_close(row.decode(out, x_t, levels).x_0, c_skip * x_t + c_out * out, rtol=1e-11, atol=1e-11)


@every_schedule
def test_target_of_edm_and_its_input_have_unit_variance_and_are_uncorrelated(schedule):
    levels, row = trained_levels(schedule), EDM(SIGMA_DATA)
    (a, b), c_in = row.row(levels), row.input_scale(levels)
    one = torch.ones_like(a)
    torch.testing.assert_close(a**2 * SIGMA_DATA**2 + b**2, one, rtol=1e-13, atol=0)
    torch.testing.assert_close(c_in**2 * (levels.alpha**2 * SIGMA_DATA**2 + levels.sigma**2), one, rtol=1e-13, atol=0)
    covariance = a * levels.alpha * SIGMA_DATA**2 + b * levels.sigma
    torch.testing.assert_close(covariance * c_in, 0 * one, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan")])
def test_edm_refuses_a_deviation_that_is_not_positive(sigma_data):
    with pytest.raises(UserError, match=f"sigma_data must be positive, got {sigma_data}; it is the data's std"):
        EDM(sigma_data)


@every_schedule
def test_other_rows_show_and_ask_of_the_net_unit_variance_for_data_of_unit_variance(schedule):
    levels = trained_levels(schedule)
    for row in (Epsilon(), X0(), V(), Score(), Flow(schedule)):
        scale = row.input_scale(levels)
        torch.testing.assert_close(scale**2 * (levels.alpha**2 + levels.sigma**2), torch.ones_like(scale))
        a, b = row.row(levels)
        asked = (a**2 + b**2) / row.output_scale(levels) ** 2  # variance of the net's own output
        torch.testing.assert_close(asked, torch.full_like(scale, 2 if isinstance(row, Flow) else 1))
    straight = LinearFlow().probe()
    torch.testing.assert_close(Flow(LinearFlow()).output_scale(straight), torch.ones_like(straight.t))


class Constant(torch.nn.Module):
    def forward(self, x, noise_label, class_label=None):
        return torch.ones_like(x)


@pytest.mark.parametrize(
    "schedule", [VE(), GeometricLadder(), SingleLevel(0.3), VP()], ids=["ve", "ladder", "single", "vp"]
)
def test_a_net_of_unit_output_predicts_a_score_of_1_over_sigma_and_so_unit_noise(schedule):
    levels = trained_levels(schedule)
    x = data_and_noise(levels)[0]
    denoiser = Denoiser(Constant(), schedule, Score())
    torch.testing.assert_close(denoiser.output(x, levels), 1 / levels.sigma.expand_as(x), rtol=1e-13, atol=0)
    torch.testing.assert_close(denoiser(x, levels).eps, -torch.ones_like(x), rtol=1e-12, atol=0)


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
    schedule = LinearChain(steps)
    levels = trained_levels(schedule)
    x_0, eps = data_and_noise(levels, size=3)
    x_t = np.sqrt(alpha_bar)[:, None] * x_0.numpy() + np.sqrt(1 - alpha_bar)[:, None] * eps.numpy()
    mean = (np.sqrt(before) * betas / (1 - alpha_bar))[:, None] * x_0.numpy()
    mean += (np.sqrt(1 - betas) * (1 - before) / (1 - alpha_bar))[:, None] * x_t
    np.testing.assert_allclose(PosteriorMean(schedule).target(x_0, eps, levels), mean, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS)
def test_posterior_mean_of_the_first_step_is_the_data(schedule):
    first = schedule.at(1 / schedule.steps)
    a, b = PosteriorMean(schedule).row(first)
    assert a.item() == 1
    assert b.item() == 0


@every_fit
def test_every_row_accepts_the_schedules_it_fits(make, schedule):
    make(schedule).check(schedule)
    assert make(schedule).det(trained_levels(schedule)).abs().min() > 1e-8


@pytest.mark.parametrize(("row", "name"), [(Epsilon(), "Epsilon"), (Score(), "Score")])
def test_rows_that_need_signal_refuse_the_straight_path_and_name_v_and_flow(row, name):
    match = rf"{name} cannot be decoded at t = 1, where alpha = 0 .*take parameterization=v \(or flow\)"
    with pytest.raises(UserError, match=match):
        Denoiser(Constant(), LinearFlow(), row)
    for remedy in (V(), Flow(LinearFlow())):
        assert Denoiser(Constant(), LinearFlow(), remedy)(double([[2.0]]), LinearFlow().at(1.0)).x_0.isfinite().all()


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_posterior_mean_refuses_continuous_time(schedule):
    with pytest.raises(UserError, match=f"needs a discrete chain, got {type(schedule).__name__}; take schedule=linear"):
        PosteriorMean(schedule)


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
    row, levels = make(schedule), trained_levels(schedule)
    x_0, eps = data_and_noise(levels)
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
