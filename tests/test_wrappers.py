"""Denoisers that correct another one's predictions, against closed forms."""

import pytest
import torch

from litdiffusion.diffusion.denoisers import (
    ClassifierFreeGuidance,
    ClippedDenoiser,
    DenoiserWrapper,
    GaussianMixtureDenoiser,
    with_x_0,
)
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.samplers.base import Predict
from litdiffusion.diffusion.schedules import LinearChain
from litdiffusion.errors import UserError

SCHEDULE = LinearChain(100)
every_time = pytest.mark.parametrize("t", [0.01, 0.3, 1.0])


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian(schedule, mean, std):
    return GaussianMixtureDenoiser(schedule, double([1.0]), double([mean]), double([std]))


def some_x(n):
    return torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2


class Conditioned(torch.nn.Module):
    """N(0, 2²) without a condition, N(1, 0.5²) with one; counts its calls."""

    schedule, calls = SCHEDULE, 0
    free, bound = (0.0, 2.0), (1.0, 0.5)

    def forward(self, x_t, level, class_label=None):
        self.calls += 1
        mean, std = self.free if class_label is None else self.bound
        return gaussian(self.schedule, [mean], [std])(x_t, level)


@every_time
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_guidance_denoises_the_geometric_mix_of_both_noised_densities(t, weight):
    now, x_t = SCHEDULE.at(t), some_x(9)
    found = ClassifierFreeGuidance(Conditioned(), weight)(x_t, now, torch.ones(9))
    # p_free^(1 - w) p_bound^w of two Gaussians is one: precisions add, each with its weight.
    parts = [(1 - weight, Conditioned.free), (weight, Conditioned.bound)]
    variances = [now.alpha**2 * std**2 + now.sigma**2 for _, (_, std) in parts]
    precision = sum(w / v for (w, _), v in zip(parts, variances, strict=True))
    mean = sum(w * now.alpha * m / v for (w, (m, _)), v in zip(parts, variances, strict=True)) / precision
    score = -precision * (x_t - mean)
    torch.testing.assert_close(found.eps, -now.sigma * score, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(diffuse(found.x_0, found.eps, now), x_t, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("weight", "class_label", "calls"), [(2.0, True, 2), (1.0, True, 1), (2.0, False, 1)])
def test_guidance_asks_twice_only_where_it_must(weight, class_label, calls):
    inner, class_label = Conditioned(), torch.ones(3) if class_label else None
    found = ClassifierFreeGuidance(inner, weight)(some_x(3), SCHEDULE.at(0.5), class_label)
    assert inner.calls == calls
    if calls == 1:
        assert torch.equal(found.x_0, Conditioned()(some_x(3), SCHEDULE.at(0.5), class_label).x_0)


def test_guidance_refuses_a_weight_that_is_no_number():
    with pytest.raises(UserError, match="must be a finite number, got nan"):
        ClassifierFreeGuidance(Conditioned(), float("nan"))


@every_time
def test_wrappers_nest_and_keep_schedule_and_consistency(t):
    now, x_t = SCHEDULE.at(t), some_x(9)
    denoiser = ClippedDenoiser(ClassifierFreeGuidance(Conditioned(), 4.0), -0.3, 0.3)
    found = denoiser(x_t, now, torch.ones(9))
    assert denoiser.schedule is SCHEDULE
    assert found.x_0.abs().max() <= 0.3
    torch.testing.assert_close(diffuse(found.x_0, found.eps, now), x_t, rtol=1e-12, atol=1e-12)


class Observed(DenoiserWrapper):
    """Adds the score of ``y = x_0 + 0.3 z`` for data N(1, 0.5²): the gradient of log p(y | x_t)."""

    y, error, std = 0.2, 0.3, 0.5

    def forward(self, x_t, level, class_label=None):
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            prediction = self.denoiser(x_t, level, class_label)
            unexplained = self.std**2 * level.sigma**2 / (level.alpha**2 * self.std**2 + level.sigma**2)
            log_likelihood = -((self.y - prediction.x_0) ** 2) / (2 * (unexplained + self.error**2))
            (slope,) = torch.autograd.grad(log_likelihood.sum(), x_t)
        x_0 = prediction.x_0 + level.sigma**2 / level.alpha * slope
        return with_x_0(prediction, x_0.detach(), x_t.detach(), level)


@every_time
def test_a_wrapper_may_take_gradients_where_samplers_take_none(t):
    now, x_t = SCHEDULE.at(t), some_x(9)
    precision = 1 / Observed.std**2 + 1 / Observed.error**2
    mean = (1 / Observed.std**2 + Observed.y / Observed.error**2) / precision
    found = Predict(Observed(gaussian(SCHEDULE, [1.0], [0.5])))(x_t, now)
    torch.testing.assert_close(found.x_0, gaussian(SCHEDULE, [mean], [precision**-0.5])(x_t, now).x_0)
    assert not found.x_0.requires_grad
