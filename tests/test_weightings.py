"""Loss weights: the same prediction costs the same in every row, and the variational weight is a divergence."""

import pytest
import torch
from parts import CONTINUOUS, ROWS, SIGMA_DATA
from torch.distributions import Normal, kl_divergence

from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.parameterizations import EDM, X0, Epsilon, Flow, PosteriorMean, Score, V
from litdiffusion.diffusion.samplers.stochastic import sde
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
)
from litdiffusion.diffusion.weightings import SNR, Likelihood, MinSNR, Simple, Variational
from litdiffusion.errors import UserError

SCHEDULES = {"linear": LinearChain(50), "cosine": CosineChain(40), "sigmoid": SigmoidChain(20)}
CHAINS = SCHEDULES | {"ladder": GeometricLadder(30)}
WEIGHTINGS = {
    "snr": lambda s: SNR(),
    "min_snr": lambda s: MinSNR(5.0),
    "likelihood": Likelihood,
    "variational_forward": lambda s: Variational(s, "forward"),
    "variational_posterior": lambda s: Variational(s, "posterior"),
}
OF_CHAINS = {"variational_forward", "variational_posterior", "posterior_mean"}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_chain = pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS)
every_continuous = pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
every_row = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)


class Case:
    """Truth and one random prediction at every trained level, in float64."""

    def __init__(self, schedule):
        generator = torch.Generator().manual_seed(1)
        self.level = schedule.at(schedule.probe().t.view(-1, 1))
        shape = 3, len(self.level.t), 5
        self.x_0, self.eps, shift = torch.randn(shape, dtype=torch.float64, generator=generator).unbind()
        self.x_t = diffuse(self.x_0, self.eps, self.level)
        self.guess = self.x_0 + shift
        self.guess_eps = (self.x_t - self.level.alpha * self.guess) / self.level.sigma

    def loss(self, weighting, row):
        error = row.target(self.guess, self.guess_eps, self.level) - row.target(self.x_0, self.eps, self.level)
        return weighting.weight(self.level, row) * error**2


@every_chain
@every_row
@pytest.mark.parametrize("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_one_prediction_costs_the_same_in_every_row(weighting, make, schedule):
    case = Case(schedule)
    expected = case.loss(weighting(schedule), Epsilon())
    torch.testing.assert_close(case.loss(weighting(schedule), make(schedule)), expected, rtol=1e-8, atol=1e-12)


@every_continuous
@pytest.mark.parametrize("make", [make for row, make in ROWS.items() if row not in OF_CHAINS])
@pytest.mark.parametrize("weighting", [make for name, make in WEIGHTINGS.items() if name not in OF_CHAINS])
def test_one_prediction_costs_the_same_in_every_row_of_continuous_time(weighting, make, schedule):
    case = Case(schedule)
    some = case.level.alpha.view(-1) > 0  # where no signal is left, epsilon and score say nothing
    expected = case.loss(weighting(schedule), V())[some]
    torch.testing.assert_close(case.loss(weighting(schedule), make(schedule))[some], expected, rtol=1e-6, atol=1e-9)


@every_chain
@every_row
def test_snr_weighting_is_the_squared_error_of_the_noise(make, schedule):
    case = Case(schedule)
    expected = (case.guess_eps - case.eps) ** 2
    torch.testing.assert_close(case.loss(SNR(), make(schedule)), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("schedule", [*CHAINS.values(), *CONTINUOUS.values(), SingleLevel(0.3)])
def test_snr_weighting_of_the_score_is_sigma_squared(schedule):
    level = schedule.at(schedule.probe().t[:-1]) if schedule.loses_signal else schedule.probe()
    torch.testing.assert_close(SNR().weight(level, Score()), level.sigma**2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", [LinearSigma(), VE(), GeometricLadder()], ids=["edm", "ve", "ladder"])
def test_simple_weighting_of_the_edm_row_is_karras_weight_of_the_denoiser(schedule):
    case = Case(schedule)
    sigma = case.level.sigma
    expected = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2 * (case.guess - case.x_0) ** 2
    torch.testing.assert_close(case.loss(Simple(), EDM(SIGMA_DATA)), expected, rtol=1e-7, atol=1e-9)


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
def test_simple_weighting_is_one_on_the_net_s_own_output(make, schedule):
    level, row = Case(schedule).level, make(schedule)
    one = torch.ones(schedule.steps, 1, dtype=torch.float64)
    torch.testing.assert_close(Simple().weight(level, row) * row.output_scale(level) ** 2, one, rtol=1e-14, atol=0)


@every_schedule
def test_simple_weighting_of_the_score_row_is_sigma_squared(schedule):
    level = Case(schedule).level
    torch.testing.assert_close(Simple().weight(level, Score()), level.sigma**2, rtol=1e-14, atol=0)


# The likelihood weighting.


@pytest.mark.parametrize("schedule", [*CHAINS.values(), *CONTINUOUS.values(), SingleLevel(0.3)])
def test_likelihood_weighting_is_half_of_g_squared_on_the_error_of_the_score(schedule):
    level = schedule.at(schedule.probe().t[:-1]) if schedule.loses_signal else schedule.probe()
    variance = sde(schedule, level)[1] / schedule.place_rate(level.t)
    torch.testing.assert_close(Likelihood(schedule).weight(level, Score()), variance / 2, rtol=1e-8, atol=1e-12)


def published_diffusion(name, t):
    """g² as Song et al. (2020) and the straight path have it."""
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
    return {
        "vp": beta,
        "subvp": beta * (1 - (-2 * integral).exp()),
        "ve": 2 * torch.tensor(5000.0).double().log() * (0.01 * 5000**t) ** 2,
        "edm": 2 * 80**2 * t,
        "flow": 2 * t / (1 - t),
    }[name]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_drift_and_diffusion_are_the_published_ones(name):
    schedule, t = CONTINUOUS[name], torch.linspace(0.002, 0.99, 50, dtype=torch.float64)
    drift, variance = sde(schedule, schedule.at(t))
    torch.testing.assert_close(variance, published_diffusion(name, t), rtol=1e-9, atol=0)
    vp = -(0.1 + 19.9 * t) / 2
    expected = {"vp": vp, "subvp": vp, "ve": 0 * t, "edm": 0 * t, "flow": -1 / (1 - t)}[name]
    torch.testing.assert_close(drift, expected, rtol=1e-12, atol=0)


def test_likelihood_weighting_is_the_limit_of_the_variational_one_per_unit_of_time():
    t = torch.tensor([0.1, 0.3, 0.5, 0.8, 1.0]).double()
    limit = Likelihood(VP()).weight(VP().at(t), Epsilon())
    gaps = []
    for steps in (1000, 2000, 4000):
        chain = LinearChain(steps)
        gaps.append(steps * Variational(chain, "forward").weight(chain.at(t), Epsilon()) / limit - 1)
    assert gaps[-1].abs().max() < 0.03
    torch.testing.assert_close(gaps[0] / gaps[1], torch.full_like(t, 2.0), rtol=0.05, atol=0)
    torch.testing.assert_close(gaps[1] / gaps[2], torch.full_like(t, 2.0), rtol=0.05, atol=0)


@every_continuous
def test_likelihood_weighting_is_minus_half_the_rate_of_log_snr_on_the_error_of_the_noise(schedule):
    t, h = 0.999 * schedule.probe().t[1:], 1e-6
    rate = -(schedule.at(t + h).log_snr - schedule.at(t - h).log_snr) / (2 * h) / 2
    level = schedule.at(t)
    found = Likelihood(schedule).weight(level, V()) * (V().det(level) / level.alpha) ** 2 * schedule.place_rate(t)
    torch.testing.assert_close(found, rate, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("row", [X0(), V(), Flow(LinearFlow()), EDM(1.0)], ids=["x0", "v", "flow", "edm"])
def test_likelihood_weighting_is_finite_where_no_signal_is_left(row):
    assert Likelihood(LinearFlow()).weight(LinearFlow().at(1.0), row).item() == 0.0


def test_variational_weighting_refuses_a_process_without_steps_and_names_the_likelihood_s():
    for schedule in (VP(), SingleLevel(0.5)):
        with pytest.raises(UserError, match=f"{type(schedule).__name__} has none; take weighting=likelihood"):
            Variational(schedule)


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
