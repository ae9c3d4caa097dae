"""Loss weights: the same prediction costs the same in every row, and the variational weight is a divergence."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from litdiffusion.errors import UserError
from litdiffusion.gaussian import diffuse
from litdiffusion.parameterizations import X0, Epsilon, PosteriorMean, V
from litdiffusion.schedules import cosine, linear, sigmoid
from litdiffusion.weightings import SNR, MinSNR, Simple, Variational

SCHEDULES = {"linear": linear(50), "cosine": cosine(40), "sigmoid": sigmoid(20)}
ROWS = {"epsilon": lambda s: Epsilon(), "x0": lambda s: X0(), "v": lambda s: V(), "posterior_mean": PosteriorMean}
WEIGHTINGS = {
    "snr": lambda s: SNR(),
    "min_snr": lambda s: MinSNR(5.0),
    "variational_forward": lambda s: Variational(s, "forward"),
    "variational_posterior": lambda s: Variational(s, "posterior"),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_row = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)


class Case:
    """Truth and one random prediction at every trained level of a chain, in float64."""

    def __init__(self, schedule):
        generator = torch.Generator().manual_seed(1)
        self.steps = torch.arange(1, schedule.steps + 1, dtype=torch.float64).view(-1, 1)
        self.level = schedule.at(self.steps / schedule.steps)
        self.x_0, self.eps, shift = torch.randn(3, schedule.steps, 5, dtype=torch.float64, generator=generator).unbind()
        self.x_t = diffuse(self.x_0, self.eps, self.level)
        self.guess = self.x_0 + shift
        self.guess_eps = (self.x_t - self.level.alpha * self.guess) / self.level.sigma

    def loss(self, weighting, row):
        error = row.target(self.guess, self.guess_eps, self.level) - row.target(self.x_0, self.eps, self.level)
        return weighting.weight(self.level, row) * error**2


@every_schedule
@every_row
@pytest.mark.parametrize("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_one_prediction_costs_the_same_in_every_row(weighting, make, schedule):
    case = Case(schedule)
    expected = case.loss(weighting(schedule), Epsilon())
    torch.testing.assert_close(case.loss(weighting(schedule), make(schedule)), expected, rtol=1e-8, atol=1e-12)


@every_schedule
@every_row
def test_snr_weighting_is_the_squared_error_of_the_noise(make, schedule):
    case = Case(schedule)
    expected = (case.guess_eps - case.eps) ** 2
    torch.testing.assert_close(case.loss(SNR(), make(schedule)), expected, rtol=1e-8, atol=1e-12)


@every_schedule
@every_row
def test_min_snr_weighting_is_the_capped_snr_on_the_error_of_the_data(make, schedule):
    case = Case(schedule)
    capped = torch.minimum((case.level.alpha / case.level.sigma) ** 2, torch.tensor(5.0))
    expected = capped * (case.guess - case.x_0) ** 2
    torch.testing.assert_close(case.loss(MinSNR(5.0), make(schedule)), expected, rtol=1e-8, atol=1e-12)


@every_schedule
@every_row
def test_min_snr_tends_to_snr_for_large_gamma_and_to_a_constant_on_the_data_for_small(make, schedule):
    row, level = make(schedule), Case(schedule).level
    torch.testing.assert_close(MinSNR(1e30).weight(level, row), SNR().weight(level, row), rtol=1e-9, atol=0)
    assert level.snr.min() > 1e-12
    constant = 1e-12 * (level.sigma / row.det(level)) ** 2
    torch.testing.assert_close(MinSNR(1e-12).weight(level, row), constant, rtol=1e-12, atol=0)


@every_schedule
@every_row
def test_simple_weighting_is_one_on_the_output(make, schedule):
    level = Case(schedule).level
    assert torch.equal(Simple().weight(level, make(schedule)), torch.ones(schedule.steps, 1, dtype=torch.float64))


def bayes(case):
    """Mean as a function of x_0, and variance, of q(x_s | x_t, x_0) for i >= 2, by the product of two Gaussians."""
    alpha, sigma = case.level.alpha, case.level.sigma
    beta = 1 - (alpha[1:] / alpha[:-1]) ** 2
    variance = 1 / (1 / sigma[:-1] ** 2 + (1 - beta) / beta)

    def mean(x_0):
        return variance * (alpha[:-1] * x_0[1:] / sigma[:-1] ** 2 + (1 - beta).sqrt() / beta * case.x_t[1:])

    return mean, variance, beta


def divergence(mean_q, variance_q, mean_p, variance_p):
    q, p = Normal(mean_q, variance_q.sqrt()), Normal(mean_p, variance_p.sqrt())
    return kl_divergence(q, p)


@every_schedule
@every_row
def test_variational_weight_with_posterior_variance_is_the_divergence_per_coordinate(make, schedule):
    case = Case(schedule)
    mean, variance, _ = bayes(case)
    expected = divergence(mean(case.x_0), variance, mean(case.guess), variance)
    loss = case.loss(Variational(schedule, "posterior"), make(schedule))[1:]
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-10)


@every_schedule
@every_row
def test_variational_weight_with_forward_variance_is_the_divergence_up_to_its_constant(make, schedule):
    case = Case(schedule)
    mean, variance, beta = bayes(case)
    constant = divergence(mean(case.x_0), variance, mean(case.x_0), beta)
    expected = divergence(mean(case.x_0), variance, mean(case.guess), beta) - constant
    loss = case.loss(Variational(schedule, "forward"), make(schedule))[1:]
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-10)


def test_variational_weight_of_epsilon_is_the_factor_in_equation_12_of_ho():
    betas = torch.linspace(0.1 / 50, 20 / 50, 50, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    expected = betas**2 / (2 * betas * (1 - betas) * (1 - alpha_bar))
    weight = Variational(SCHEDULES["linear"], "forward").weight(Case(SCHEDULES["linear"]).level, Epsilon())
    torch.testing.assert_close(weight.view(-1), expected, rtol=1e-9, atol=0)


@every_schedule
def test_first_step_borrows_the_posterior_variance_of_the_second(schedule):
    case = Case(schedule)
    _, variance, _ = bayes(case)
    weight = Variational(schedule, "posterior").weight(case.level, PosteriorMean(schedule)).view(-1)
    torch.testing.assert_close(weight[0], 1 / (2 * variance[0, 0]), rtol=1e-9, atol=0)
    torch.testing.assert_close(weight[1], weight[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_min_snr_refuses_a_gamma_that_is_not_positive(gamma):
    with pytest.raises(UserError, match=f"gamma must be positive, got {gamma}; 5 is usual"):
        MinSNR(gamma)


def test_variational_refuses_an_unknown_variance():
    with pytest.raises(UserError, match="must be forward or posterior, got 'learned'"):
        Variational(SCHEDULES["linear"], "learned")
