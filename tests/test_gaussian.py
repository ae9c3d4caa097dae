"""Transitions and posteriors against Bayes' rule by hand, and Ho's formulas for a beta table."""

import numpy as np
import pytest
import torch

from litdiffusion.diffusion.gaussian import diffuse, mix, posterior, score, transition
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules import LinearChain

FAMILIES = {
    "variance_preserving": lambda t: (np.cos(np.pi / 2 * t), np.sin(np.pi / 2 * t)),
    "variance_exploding": lambda t: (1.0, 50.0**t * 0.02),
    "straight_flow": lambda t: (1 - t, t),
    "variance_shrinking": lambda t: (np.exp(-3 * t), 0.3 * t),
}
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
pairs = pytest.mark.parametrize(("s", "t"), [(0.1, 0.2), (0.3, 0.9), (0.01, 0.95), (0.5, 0.501)])


def level(t, alpha, sigma):
    return Level(*(torch.tensor(v, dtype=torch.float64) for v in (t, alpha, sigma)))


@families
@pairs
def test_posterior_is_the_product_of_prior_and_likelihood(family, s, t):
    (alpha_s, sigma_s), (alpha_t, sigma_t) = family(s), family(t)
    scale = alpha_t / alpha_s
    step_variance = sigma_t**2 - scale**2 * sigma_s**2
    x_0, x_t = 0.7, -1.3
    precision = 1 / sigma_s**2 + scale**2 / step_variance  # q(x_s | x_0) times q(x_t | x_s), as a function of x_s
    mean = (alpha_s * x_0 / sigma_s**2 + scale * x_t / step_variance) / precision

    found = posterior(level(s, alpha_s, sigma_s), level(t, alpha_t, sigma_t))

    assert float(found.weight_x_0 * x_0 + found.weight_x_t * x_t) == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert float(found.variance) == pytest.approx(1 / precision, rel=1e-9)


@families
@pairs
def test_posterior_is_the_conditional_of_the_joint_found_on_a_grid(family, s, t):
    (alpha_s, sigma_s), (alpha_t, sigma_t) = family(s), family(t)
    found = posterior(level(s, alpha_s, sigma_s), level(t, alpha_t, sigma_t))
    x_0, x_t = 0.4, 0.9
    mean = float(found.weight_x_0 * x_0 + found.weight_x_t * x_t)
    std = float(found.variance) ** 0.5
    scale = alpha_t / alpha_s
    x_s = np.linspace(mean - 9 * std, mean + 9 * std, 4001)
    log_density = -0.5 * ((x_s - alpha_s * x_0) / sigma_s) ** 2
    log_density -= 0.5 * (x_t - scale * x_s) ** 2 / (sigma_t**2 - (scale * sigma_s) ** 2)
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    grid_mean = (density * x_s).sum()
    assert grid_mean == pytest.approx(mean, rel=1e-7, abs=1e-7 * std)
    assert (density * (x_s - grid_mean) ** 2).sum() == pytest.approx(std**2, rel=1e-7)


@families
def test_transition_from_s_over_u_equals_the_direct_one_to_t(family):
    s, u, t = (level(time, *family(time)) for time in (0.1, 0.35, 0.8))
    first, second, direct = transition(s, u), transition(u, t), transition(s, t)
    assert float(first.scale * second.scale) == pytest.approx(float(direct.scale), rel=1e-13)
    composed = second.scale**2 * first.variance + second.variance
    assert float(composed) == pytest.approx(float(direct.variance), rel=1e-12)


@families
def test_transition_carries_the_marginal_at_s_into_the_marginal_at_t(family):
    s, t = (level(time, *family(time)) for time in (0.2, 0.7))
    scale, variance = transition(s, t)
    assert float(scale * s.alpha) == pytest.approx(float(t.alpha), rel=1e-13)
    assert float((scale * s.sigma) ** 2 + variance) == pytest.approx(float(t.sigma) ** 2, rel=1e-13)


@families
def test_posterior_over_the_marginal_at_t_gives_back_the_marginal_at_s(family):
    s, t = (level(time, *family(time)) for time in (0.2, 0.7))
    weight_x_0, weight_x_t, variance = posterior(s, t)
    assert float(weight_x_0 + weight_x_t * t.alpha) == pytest.approx(float(s.alpha), rel=1e-12)
    assert float(weight_x_t**2 * t.sigma**2 + variance) == pytest.approx(float(s.sigma) ** 2, rel=1e-12)


@pytest.mark.parametrize("steps", [50, 1000])
def test_forward_variance_is_beta_and_posterior_is_equation_7_of_ho(steps):
    betas = np.linspace(0.1 / steps, 20 / steps, steps)
    alpha_bar = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    levels = LinearChain(steps).at(torch.arange(steps + 1, dtype=torch.float64) / steps)
    s, t = Level(*(f[:-1] for f in levels)), Level(*(f[1:] for f in levels))

    np.testing.assert_allclose(transition(s, t).variance, betas, rtol=1e-9)
    np.testing.assert_allclose(transition(s, t).scale, np.sqrt(1 - betas), rtol=1e-12)
    found = posterior(s, t)
    np.testing.assert_allclose(found.weight_x_0, np.sqrt(before) * betas / (1 - alpha_bar), rtol=1e-9)
    coefficient = np.sqrt(1 - betas) * (1 - before) / (1 - alpha_bar)
    np.testing.assert_allclose(found.weight_x_t, coefficient, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.variance, (1 - before) / (1 - alpha_bar) * betas, rtol=1e-9, atol=1e-15)


@families
@pytest.mark.parametrize("t", [1e-3, 0.5, 0.99])
def test_posterior_into_clean_data_is_x_0_exactly(family, t):
    found = posterior(level(0.0, 1.0, 0.0), level(t, *family(t)))
    assert float(found.weight_x_0) == 1.0
    assert float(found.weight_x_t) == 0.0
    assert float(found.variance) == 0.0


def test_transition_from_clean_data_is_diffusion_itself():
    scale, variance = transition(level(0.0, 1.0, 0.0), level(0.5, 0.6, 0.9))
    assert float(scale) == 0.6
    assert float(variance) == pytest.approx(0.81, rel=1e-15)


def test_diffuse_scales_data_and_noise_per_sample():
    x_0 = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    eps = torch.tensor([[10.0, 20.0], [30.0, 40.0]], dtype=torch.float64)
    levels = Level(*(torch.tensor(v, dtype=torch.float64).view(2, 1) for v in ([0.1, 0.2], [1.0, 0.5], [0.0, 0.25])))
    expected = torch.tensor([[1.0, 2.0], [9.0, 12.0]], dtype=torch.float64)
    assert torch.equal(diffuse(x_0, eps, levels), expected)


def test_diffuse_at_the_clean_level_is_the_data():
    x_0, eps = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).unbind()
    assert torch.equal(diffuse(x_0, eps, level(0.0, 1.0, 0.0)), x_0)


def test_score_of_a_point_mass_is_the_gradient_of_its_gaussian():
    now = level(0.5, 0.8, 0.6)
    x_0 = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    x_t = torch.tensor([[0.3, 0.4]], dtype=torch.float64)
    expected = -(x_t - 0.8 * x_0) / 0.36
    torch.testing.assert_close(score((x_t - 0.8 * x_0) / 0.6, now), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(), (4, 1)], ids=["one level", "a level per sample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float64_levels_leave_the_dtype_of_the_data_alone(shape, dtype):
    now = Level(*(torch.full(shape, v, dtype=torch.float64) for v in (0.5, 0.8, 0.6)))
    x, y = torch.ones(4, 3, dtype=dtype), torch.full((4, 3), 2.0, dtype=dtype)
    assert mix(now.alpha, x, now.sigma, y).dtype == dtype
    assert diffuse(x, y, now).dtype == dtype
    assert score(x, now).dtype == dtype
    torch.testing.assert_close(diffuse(x, y, now).double(), torch.full((4, 3), 2.0).double(), rtol=1e-2, atol=0)
