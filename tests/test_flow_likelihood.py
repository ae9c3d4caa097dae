"""The density of the probability flow against densities in closed form."""

import math

import pytest
import torch
from mixtures import LINE, PLANE, Mixture, Unlabelled

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.likelihood import Exact, Hutchinson, flow_log_likelihood
from litdiffusion.diffusion.parameterizations import Epsilon
from litdiffusion.diffusion.schedules import (
    VE,
    VP,
    CosineChain,
    GeometricLadder,
    LinearChain,
    LinearFlow,
    LinearSigma,
    SingleLevel,
    SubVP,
)
from litdiffusion.errors import UserError

SCHEDULES = {
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(),
    "linear_sigma": LinearSigma(),
    "linear_flow": LinearFlow(),
    "linear": LinearChain(1000),
    "linear_coarse": LinearChain(50),
    "cosine": CosineChain(1000),
    "ladder": GeometricLadder(50),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
POINTS = torch.linspace(-2.5, 1.8, 12, dtype=torch.float64)[:, None]
PLANE_POINTS = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def blurred(mixture, schedule, x):
    """The exact log density of x_0 + sigma / alpha eps at the cleanest trained time."""
    return mixture.log_density(x, 1.0, schedule.at(schedule.t_min).ratio)


@every_schedule
def test_the_flow_equals_the_exact_log_density_of_a_mixture(schedule):
    end = schedule.at(1.0)
    for mixture, x in ((LINE, POINTS), (PLANE, PLANE_POINTS)):
        found = flow_log_likelihood(
            mixture.denoiser(schedule),
            x,
            rtol=1e-7,
            atol=1e-7,
            prior=lambda z, mixture=mixture: mixture.log_density(z, end.alpha, end.sigma),
        )
        torch.testing.assert_close(found.log_density, blurred(mixture, schedule, x), rtol=0, atol=2e-6)
        assert found.calls < 300


@every_schedule
def test_the_model_s_own_prior_moves_the_log_density_by_what_is_left_of_the_data(schedule):
    denoiser, end = LINE.denoiser(schedule), schedule.at(1.0)
    found = flow_log_likelihood(denoiser, POINTS)
    z = found.latent[:, 0] / schedule.prior_std
    left = (z**2 - 1) / 2 * (1 - (end.alpha**2 + end.sigma**2) / schedule.prior_std**2)  # mean 0, deviation 1
    error = found.log_density - blurred(LINE, schedule, POINTS)
    torch.testing.assert_close(error, left, rtol=0.08, atol=1e-3)
    if schedule is not SCHEDULES["ladder"]:  # which ends at sigma = 10, early for data of deviation 1
        assert error.abs().max() < 2e-3


def test_the_latent_of_a_gaussian_is_its_quantile():
    normal = Mixture([1.0], [[1.0]], [0.5])
    schedule = VP()
    start, end = schedule.at(schedule.t_min), schedule.at(1.0)
    found = flow_log_likelihood(normal.denoiser(schedule), POINTS, rtol=1e-8, atol=1e-8)
    std = (end.alpha**2 * 0.25 + end.sigma**2).sqrt() / (start.alpha**2 * 0.25 + start.sigma**2).sqrt()
    torch.testing.assert_close(found.latent, end.alpha + std * start.alpha * (POINTS - 1), rtol=0, atol=1e-7)


def test_the_flow_tends_to_the_density_of_the_data_at_the_square_of_the_first_noise():
    biases = []
    for t_min in (1e-2, 1e-3):
        schedule = LinearFlow(t_min)
        found = flow_log_likelihood(LINE.denoiser(schedule), POINTS, rtol=1e-9, atol=1e-9).log_density
        biases.append((found - LINE.log_density(POINTS)).abs().max().item())
    assert biases[0] / biases[1] == pytest.approx(100, rel=0.05)
    assert biases[1] < 1e-4


@every_schedule
def test_the_data_s_own_density_is_missed_by_the_noise_that_is_left_at_t_min(schedule):
    """By ratio² / 2 times (Laplacian of p) / p, to the next order in ratio²; the docs have the largest values."""
    ratio, end, x = schedule.at(schedule.t_min).ratio.item(), schedule.at(1.0), POINTS.clone().requires_grad_()
    density = LINE.log_density(x).exp()
    (slope,) = torch.autograd.grad(density.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    found = flow_log_likelihood(
        LINE.denoiser(schedule), POINTS, None, None, 1e-7, 1e-7, lambda z: LINE.log_density(z, end.alpha, end.sigma)
    )
    error, expected = found.log_density - LINE.log_density(POINTS), ratio**2 / 2 * curvature[:, 0] / density.detach()
    torch.testing.assert_close(error, expected, rtol=100 * ratio**2, atol=3e-6)
    assert error.abs().max() < 26 * ratio**2 + 3e-6


def test_the_flow_s_density_integrates_to_1_in_float32():
    x = torch.linspace(-4, 4, 401)[:, None]
    density = flow_log_likelihood(LINE.denoiser(VP()), x).log_density.exp()
    assert density.dtype == torch.float32
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("law", ["rademacher", "normal"])
def test_hutchinsons_estimate_is_unbiased_within_its_standard_error(law):
    denoiser = PLANE.denoiser(VP())
    exact = flow_log_likelihood(denoiser, PLANE_POINTS, None, Exact(), 1e-6, 1e-6).log_density
    many = PLANE_POINTS.repeat_interleave(300, 0)  # independent probes for each copy
    found = flow_log_likelihood(denoiser, many, None, Hutchinson(1, law), 1e-6, 1e-6).log_density.view(-1, 300)
    error = found.std(1) / 300**0.5
    assert error.mean() > 0.01
    assert ((found.mean(1) - exact).abs() < 3.5 * error + 1e-5).all()


def test_more_probes_are_averaged_and_a_seed_fixes_them():
    denoiser, many = PLANE.denoiser(VP()), PLANE_POINTS[:1].repeat(200, 1)
    one, four, again, other = (
        flow_log_likelihood(denoiser, many, None, Hutchinson(probes, seed=seed)).log_density
        for probes, seed in ((1, 0), (4, 0), (4, 0), (4, 1))
    )
    assert torch.equal(four, again)
    assert not torch.equal(four, other)
    assert one.var().item() / four.var().item() == pytest.approx(4, rel=0.5)


def test_a_net_s_flow_needs_no_gradient_of_its_weights_and_leaves_none():
    net = torch.nn.Linear(2, 2).requires_grad_(True)
    denoiser = Denoiser(Unlabelled(net), VP(), Epsilon())
    with torch.no_grad():
        found = flow_log_likelihood(denoiser, torch.randn(3, 2))
    assert not found.log_density.requires_grad
    assert net.weight.grad is None


def test_the_flow_refuses_what_it_cannot_solve():
    with pytest.raises(UserError, match="rtol and atol of the flow must be positive, got 0"):
        flow_log_likelihood(LINE.denoiser(VP()), POINTS, rtol=0.0)
    with pytest.raises(UserError, match="a single noise level has no flow"):
        flow_log_likelihood(LINE.denoiser(SingleLevel()), POINTS)
    with pytest.raises(UserError, match="the flow cannot be solved to rtol=1e-05"):
        flow_log_likelihood(Denoiser(Unlabelled(Broken()), VP(), Epsilon()), POINTS)
    with pytest.raises(UserError, match="must be rademacher or normal, got 'cauchy'"):
        Hutchinson(law="cauchy")


class Broken(torch.nn.Module):
    def forward(self, x):
        return x * math.nan
