"""Analytic denoisers against integration, Tweedie and limits; the learned one against its labels."""

import numpy as np
import pytest
import torch

from litdiffusion.diffusion.denoisers import ClippedDenoiser, Denoiser, GaussianMixtureDenoiser, empirical_denoiser
from litdiffusion.diffusion.gaussian import diffuse, score
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.parameterizations import X0, Epsilon, PosteriorMean, V
from litdiffusion.diffusion.schedules import DiscreteSchedule, LinearChain
from litdiffusion.errors import UserError

SCHEDULE = LinearChain(100)
TIMES = [0.01, 0.1, 0.35, 0.7, 1.0]
every_time = pytest.mark.parametrize("t", TIMES)


def level(alpha, sigma):
    return Level(*(torch.tensor(v, dtype=torch.float64) for v in (0.5, alpha, sigma)))


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture_of_three():
    weights, means = double([0.2, 0.5, 0.3]), double([[-2.0, 0.5], [1.0, -1.0], [0.3, 2.0]])
    return weights, means, double([[0.3, 0.6], [0.5, 0.2], [1.0, 0.4]])


@every_time
def test_single_gaussian_has_the_linear_closed_form(t):
    now = SCHEDULE.at(t)
    mean, std = double([[1.0, -3.0]]), double([[0.5, 2.0]])
    x_t = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    found = GaussianMixtureDenoiser(SCHEDULE, double([1.0]), mean, std)(x_t, now)
    gain = now.alpha * std**2 / (now.alpha**2 * std**2 + now.sigma**2)
    x_0 = mean + gain * (x_t - now.alpha * mean)
    torch.testing.assert_close(found.x_0, x_0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.eps, (x_t - now.alpha * x_0) / now.sigma, rtol=1e-11, atol=1e-11)


@every_time
def test_mixture_in_one_dimension_equals_numerical_integration(t):
    now = SCHEDULE.at(t)
    weights, means, stds = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.4, 0.25])
    x_0 = np.linspace(-5, 5, 40001)[:, None]
    density = (weights / stds * np.exp(-0.5 * ((x_0 - means) / stds) ** 2)).sum(1)
    x_t = np.linspace(-2.5, 2.5, 11)
    log_likelihood = -0.5 * ((x_t - now.alpha.item() * x_0) / now.sigma.item()) ** 2
    joint = density[:, None] * np.exp(log_likelihood - log_likelihood.max(0))
    expected = (joint * x_0).sum(0) / joint.sum(0)

    denoiser = GaussianMixtureDenoiser(SCHEDULE, double([3.0, 7.0]), double(means[:, None]), double(stds[:, None]))
    np.testing.assert_allclose(denoiser(double(x_t[:, None]), now).x_0[:, 0], expected, rtol=1e-7, atol=1e-7)


@every_time
def test_expected_noise_is_the_gradient_of_the_log_density(t):
    now = SCHEDULE.at(t)
    weights, means, stds = mixture_of_three()
    x_t = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).mul(2).requires_grad_()
    noised = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.Independent(
            torch.distributions.Normal(now.alpha * means, (now.alpha**2 * stds**2 + now.sigma**2).sqrt()), 1
        ),
    )
    (gradient,) = torch.autograd.grad(noised.log_prob(x_t).sum(), x_t)
    eps = GaussianMixtureDenoiser(SCHEDULE, weights, means, stds)(x_t.detach(), now).eps
    torch.testing.assert_close(score(eps, now), gradient, rtol=1e-9, atol=1e-9)


@every_time
@pytest.mark.parametrize("clip", [False, True])
def test_analytic_predictions_explain_x_t(t, clip):
    now = SCHEDULE.at(t)
    denoiser = GaussianMixtureDenoiser(SCHEDULE, *mixture_of_three())
    denoiser = ClippedDenoiser(denoiser, -0.5, 0.5) if clip else denoiser
    x_t = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2
    torch.testing.assert_close(diffuse(*denoiser(x_t, now)[:2], now), x_t, rtol=1e-12, atol=1e-12)


def test_mixture_tends_to_x_t_over_alpha_without_noise_and_to_its_mean_without_signal():
    weights, means, stds = mixture_of_three()
    denoiser = GaussianMixtureDenoiser(SCHEDULE, weights, means, stds)
    x_t = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(denoiser(x_t, level(0.8, 1e-6)).x_0, x_t / 0.8, rtol=0, atol=1e-9)
    expected = (weights[:, None] * means).sum(0).expand(9, 2)
    torch.testing.assert_close(denoiser(x_t, level(1e-9, 1.0)).x_0, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_weights_count_only_relative_to_each_other(scale):
    weights, means, stds = mixture_of_three()
    x_t = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one, other = (GaussianMixtureDenoiser(SCHEDULE, w, means, stds) for w in (weights, scale * weights))
    torch.testing.assert_close(one(x_t, level(0.7, 0.7)).x_0, other(x_t, level(0.7, 0.7)).x_0, rtol=1e-13, atol=0)


def test_empirical_denoiser_tends_to_the_nearest_point_without_noise():
    data = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x_t = torch.randn(25, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    nearest = data[torch.cdist(x_t / 0.9, data).argmin(1)]
    found = empirical_denoiser(SCHEDULE, data)(x_t, level(0.9, 1e-3)).x_0
    torch.testing.assert_close(found, nearest, rtol=0, atol=1e-9)


def test_empirical_denoiser_tends_to_the_mean_of_the_data_without_signal():
    data = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x_t = torch.randn(25, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    found = empirical_denoiser(SCHEDULE, data)(x_t, level(1e-10, 1.0)).x_0
    torch.testing.assert_close(found, data.mean(0).expand(25, 2), rtol=0, atol=1e-8)


@every_time
def test_empirical_denoiser_is_a_softmax_over_squared_distances(t):
    now = SCHEDULE.at(t)
    data = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x_t = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    distance = torch.cdist(x_t, now.alpha * data) ** 2
    expected = (-distance / (2 * now.sigma**2)).softmax(1) @ data
    torch.testing.assert_close(empirical_denoiser(SCHEDULE, data)(x_t, now).x_0, expected, rtol=1e-8, atol=1e-8)


def test_mixture_answers_one_level_and_a_level_per_sample_alike():
    denoiser = GaussianMixtureDenoiser(SCHEDULE, *mixture_of_three())
    x_t = torch.randn(len(TIMES), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    together = denoiser(x_t, SCHEDULE.at(double(TIMES).view(-1, 1)))
    for k, t in enumerate(TIMES):
        alone = denoiser(x_t[k : k + 1], SCHEDULE.at(t))
        torch.testing.assert_close(together.x_0[k : k + 1], alone.x_0, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(together.eps[k : k + 1], alone.eps, rtol=1e-12, atol=1e-13)


def test_mixture_refuses_bad_weights_and_means():
    with pytest.raises(UserError, match=r"means must be \(K, d\) for K weights, got \(3,\) for 3"):
        GaussianMixtureDenoiser(SCHEDULE, torch.ones(3), torch.ones(3), torch.ones(1))
    with pytest.raises(UserError, match=r"must be positive, got \[1.0, 0.0\]; drop"):
        GaussianMixtureDenoiser(SCHEDULE, double([1.0, 0.0]), double([[1.0], [2.0]]), torch.ones(1))


@every_time
def test_clipping_clamps_x_0_and_changes_nothing_inside_the_range(t):
    now = SCHEDULE.at(t)
    exact = GaussianMixtureDenoiser(SCHEDULE, *mixture_of_three())
    x_t = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) * 2
    plain = exact(x_t, now)
    wide, narrow = ClippedDenoiser(exact, -100.0, 100.0)(x_t, now), ClippedDenoiser(exact, -0.5, 0.2)(x_t, now)
    assert torch.equal(wide.x_0, plain.x_0)
    torch.testing.assert_close(wide.eps, plain.eps, rtol=1e-12, atol=1e-12)
    assert torch.equal(narrow.x_0, plain.x_0.clamp(-0.5, 0.2))
    inside = (plain.x_0 > -0.5) & (plain.x_0 < 0.2)
    assert 0 < inside.sum() < inside.numel()
    torch.testing.assert_close(narrow.eps[inside], plain.eps[inside], rtol=1e-12, atol=1e-12)


def test_clipping_keeps_the_schedule_of_its_denoiser():
    exact = GaussianMixtureDenoiser(SCHEDULE, *mixture_of_three())
    assert ClippedDenoiser(exact, -1.0, 1.0).schedule is SCHEDULE


class Recorder(torch.nn.Module):
    """``tanh(x) * label / 100 + class_label``, and remembers what it was told."""

    def forward(self, x, noise_label, class_label=None):
        self.noise_label, self.class_label = noise_label, class_label
        out = x.tanh() * noise_label.view(-1, *[1] * (x.ndim - 1)) / 100
        return out if class_label is None else out + class_label.view(-1, *[1] * (x.ndim - 1))


ROWS = {"epsilon": Epsilon(), "x0": X0(), "v": V(), "posterior_mean": PosteriorMean(SCHEDULE)}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_net_is_told_the_labels_1_to_t(dtype):
    net = Recorder()
    denoiser = Denoiser(net, SCHEDULE, Epsilon())
    index = torch.arange(1, 101)
    denoiser(torch.zeros(100, 2, dtype=dtype), SCHEDULE.at(index.double().view(-1, 1) / 100))
    assert torch.equal(net.noise_label, index.to(dtype))
    for i in (1, 2, 7, 28, 57, 100):
        denoiser(torch.zeros(3, 2, dtype=dtype), SCHEDULE.at(i / 100))
        assert net.noise_label.tolist() == [i, i, i]


@every_row
@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_one_level_and_a_level_per_sample_predict_the_same(row, shape):
    denoiser = Denoiser(Recorder(), SCHEDULE, row)
    x_t = torch.randn(5, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    one, class_label = SCHEDULE.at(0.37), torch.arange(5, dtype=torch.float64)
    each = SCHEDULE.at(torch.full((5, *[1] * len(shape)), 0.37, dtype=torch.float64))
    for a, b in zip(denoiser(x_t, one, class_label), denoiser(x_t, each, class_label), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@every_row
def test_learned_prediction_is_the_decoded_output_of_the_net(row):
    x_t = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    now = SCHEDULE.at(0.37)
    x_0, eps, _ = Denoiser(Recorder(), SCHEDULE, row)(x_t, now)
    torch.testing.assert_close(diffuse(x_0, eps, now), x_t, rtol=0, atol=1e-10)
    torch.testing.assert_close(row.target(x_0, eps, now), x_t.tanh() * 0.37, rtol=0, atol=1e-10)


def test_condition_reaches_the_net():
    net, class_label = Recorder(), torch.tensor([1.0, 2.0])
    out = Denoiser(net, SCHEDULE, Epsilon()).output(torch.zeros(2, 3), SCHEDULE.at(0.5), class_label)
    assert net.class_label is class_label
    assert out.tolist() == [[1.0] * 3, [2.0] * 3]


class HalfNet(torch.nn.Module):
    def forward(self, x, noise_label, class_label=None):
        return x.bfloat16() * 2


def test_output_of_a_half_precision_net_returns_in_the_dtype_of_the_data():
    x_t = torch.tensor([[0.5, 1.25]])
    out = Denoiser(HalfNet(), SCHEDULE, Epsilon()).output(x_t, SCHEDULE.at(0.5))
    assert out.dtype == torch.float32
    assert out.tolist() == [[1.0, 2.5]]


def test_learned_denoiser_refuses_a_row_that_cannot_be_decoded():
    schedule = DiscreteSchedule(double([0.5, 0.5, 1 - 2**-53]))
    with pytest.raises(UserError, match="Epsilon cannot be decoded at t = 1"):
        Denoiser(Recorder(), schedule, Epsilon())
    Denoiser(Recorder(), schedule, V())
