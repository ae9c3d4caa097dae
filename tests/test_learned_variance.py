"""Learned variances: between the two fixed ones, at the best place where the bound says so."""

from itertools import pairwise

import pytest
import torch
from mixtures import ENTROPY, GAUSSIAN, MEAN, STD, TWO_BY_TWO, Unlabelled, double, signs, true_spreads
from torch.distributions import Normal, kl_divergence

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.gaussian import diffuse, log_variance_between, posterior, transition
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.likelihood import bound_term, variational_bound
from litdiffusion.diffusion.likelihood.normals import log_probability_8bit
from litdiffusion.diffusion.objectives import DenoisingObjective, HybridObjective
from litdiffusion.diffusion.parameterizations import Epsilon
from litdiffusion.diffusion.samplers import Ancestral
from litdiffusion.diffusion.schedules import VP, GeometricLadder, LinearChain
from litdiffusion.diffusion.times import UniformTimes
from litdiffusion.diffusion.weightings import Simple
from litdiffusion.errors import UserError

BYTES = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def test_the_best_spread_makes_the_bound_of_a_gaussian_exact_and_is_found_by_minimisation():
    """The true reverse step of a Gaussian is normal, of a variance between the two: only the prior's mismatch stays."""
    schedule = LinearChain(30)
    net = Spreads(schedule)
    level = schedule.at(torch.arange(1, 31, dtype=torch.float64).repeat_interleave(4).view(-1, 1) / 30)
    x_0, eps = TWO_BY_TWO.repeat(30, 1), signs(None).repeat(30, 1)
    for _ in range(12):  # Newton's method: each spread has a term of its own
        bound = bound_term(schedule, x_0, net(diffuse(x_0, eps, level), level), level, "gaussian").sum()
        (slope,) = torch.autograd.grad(bound, net.variance_fraction, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), net.variance_fraction)
        net.variance_fraction.data -= (slope / curvature).detach()
    best = true_spreads(schedule)
    assert ((best > 0) & (best < 1)).all()
    torch.testing.assert_close(net.variance_fraction.detach(), best, rtol=0, atol=1e-6)
    end = schedule.at(1.0)
    ends = Normal(end.alpha * MEAN, (end.alpha**2 * STD**2 + end.sigma**2).sqrt()), Normal(0.0, 1.0)
    net.variance_fraction.data = best
    gap = variational_bound(net, TWO_BY_TWO, "learned", "gaussian", noise=signs).total.mean().item() - ENTROPY
    assert gap == pytest.approx(kl_divergence(*ends).item(), abs=1e-10)


class Spreads(torch.nn.Module):
    """The exact denoiser of the Gaussian, with one trainable spread per step of the chain."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.exact = schedule, GAUSSIAN.denoiser(schedule)
        self.variance_fraction = torch.nn.Parameter(torch.full((schedule.steps,), 0.5, dtype=torch.float64))

    def forward(self, x_t, level, class_label=None):
        variance_fraction = self.variance_fraction[self.schedule.noise_label(level).long() - 1]
        return self.exact(x_t, level)._replace(variance_fraction=variance_fraction.expand_as(x_t))


def test_the_logarithm_of_the_variance_is_interpolated():
    lower, upper = double(0.01), double(0.04)
    found = log_variance_between(lower, upper, double([0.0, 0.5, 1.0, 1.5])).exp()
    torch.testing.assert_close(found, double([0.01, 0.02, 0.04, 0.08]))


@pytest.mark.parametrize("schedule", [LinearChain(24), GeometricLadder(24), VP()], ids=["linear", "ladder", "vp"])
@pytest.mark.parametrize(("variance_fraction", "variance"), [(0.0, "posterior"), (1.0, "forward")])
def test_ancestral_with_the_spread_at_its_ends_is_ancestral_with_a_fixed_variance(
    schedule, variance_fraction, variance
):
    x = schedule.prior_std * torch.randn(6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = GAUSSIAN.denoiser(schedule)
    told = Told(exact, variance_fraction)
    learned = Ancestral(20, "learned").sample(told, x, noise=seeded_noise(1))
    fixed = Ancestral(20, variance).sample(exact, x, noise=seeded_noise(1))
    torch.testing.assert_close(learned, fixed, rtol=1e-10, atol=1e-10)
    between = Ancestral(20, "learned").sample(Told(exact, 0.5), x, noise=seeded_noise(1))
    assert not torch.allclose(between, fixed, rtol=1e-4)


class Told(torch.nn.Module):
    def __init__(self, denoiser, variance_fraction):
        super().__init__()
        self.denoiser, self.schedule, self.variance_fraction = denoiser, denoiser.schedule, variance_fraction

    def forward(self, x_t, level, class_label=None):
        return self.denoiser(x_t, level)._replace(variance_fraction=torch.full_like(x_t, self.variance_fraction))


def test_the_true_spread_draws_the_exact_variance_where_the_fixed_ones_miss_it():
    """On N(1, 1/4) the walk is affine; with Var(x_s | x_t) itself only the last step's missing noise is left."""
    schedule = LinearChain(50)
    found = {}
    for variance, variance_fractions in (("posterior", None), ("forward", None), ("learned", true_spreads(schedule))):
        sampler, denoiser, variance_fraction = Ancestral(variance=variance), GAUSSIAN.denoiser(schedule), 1.0
        probe = double([[0.0], [1.0], [0.0]])
        levels = sampler.levels(schedule)
        for now, after in pairwise(levels[:-1]):
            prediction = denoiser(probe, now)
            if variance_fractions is not None:
                step = variance_fractions[schedule.noise_label(now).long() - 1]
                prediction = prediction._replace(variance_fraction=step.expand_as(probe))
            out = sampler.step(probe, prediction, now, after, lambda x: double([[0.0], [0.0], [1.0]]))
            slope, gain = (out[1] - out[0]).item(), (out[2] - out[0]).item()
            variance_fraction = slope**2 * variance_fraction + gain**2
        found[variance] = variance_fraction - (levels[-2].alpha ** 2 * STD**2 + levels[-2].sigma ** 2).item()
    assert found["posterior"] < -0.01 < 0.005 < found["forward"]
    assert abs(found["learned"]) < 1e-4  # the prior's variance, 1 for 0.99995 at t = 1


def test_a_learned_variance_is_refused_where_none_was_learned():
    with pytest.raises(UserError, match=r"sampler\.variance=learned needs a denoiser with a learned variance"):
        Ancestral(variance="learned").sample(GAUSSIAN.denoiser(LinearChain(24)), torch.zeros(1, 1))


class TwoHalves(torch.nn.Module):
    """A net whose two halves have their own weights: the output, and v of the variance."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mean, self.variance = (
            torch.nn.Parameter(0.5 * torch.randn(3, 3, dtype=torch.float64, generator=generator)) for _ in range(2)
        )

    def forward(self, x, noise_label, class_label=None):
        return torch.cat([x @ self.mean, (x @ self.variance).tanh()], 1)


class HybridCase:
    def __init__(self, decoder):
        self.schedule, self.decoder = LinearChain(24), decoder
        self.net = TwoHalves()
        self.denoiser = Denoiser(self.net, self.schedule, Epsilon(), learned_variance=True)
        x_0 = torch.randn(24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        self.x_0 = x_0 if decoder == "gaussian" else BYTES[(x_0.clamp(-1, 1) * 127 + 127).long()]

    def losses(self, objective):
        return objective(self.denoiser, self.x_0, noise=seeded_noise(2), offset=0.5)

    def hybrid(self, factor=0.001):
        return self.losses(HybridObjective(UniformTimes(self.schedule), Simple(), self.decoder, factor))

    def simple(self):
        return self.losses(DenoisingObjective(UniformTimes(self.schedule), Simple()))


both_decoders = pytest.mark.parametrize("decoder", ["gaussian", "8bit"])


@both_decoders
def test_the_hybrid_loss_trains_the_mean_as_the_simple_loss_and_the_spread_by_the_bound(decoder):
    case = HybridCase(decoder)
    simple = torch.autograd.grad(case.simple().mean(), case.net.mean)[0]
    mean, variance = torch.autograd.grad(case.hybrid().mean(), (case.net.mean, case.net.variance))
    torch.testing.assert_close(mean, simple, rtol=1e-12, atol=1e-14)
    # With one sample at each of the 24 levels the batch's mean is the bound per coordinate, but for the prior.
    slope = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            with torch.no_grad():
                ends = []
                for step in (1e-5, -1e-5):
                    case.net.variance[i, j] += step
                    ends.append(per_coordinate_bound(case))
                    case.net.variance[i, j] -= step
            slope[i, j] = (ends[0] - ends[1]) / 2e-5
    torch.testing.assert_close(variance, 0.001 * slope, rtol=1e-5, atol=1e-9)
    assert variance.abs().max() > 1e-5


def per_coordinate_bound(case):
    """T times the mean of the terms at levels T..1, in nats per coordinate, from torch's own normals where i > 1."""
    noise, nats = seeded_noise(2)(case.x_0), []
    for x_0, eps, i in zip(case.x_0, noise, range(24, 0, -1), strict=True):
        now, after = case.schedule.at(i / 24), case.schedule.at((i - 1) / 24)
        x_t = diffuse(x_0[None], eps[None], now)
        guess = case.denoiser(x_t, now)
        weight, _, lower = posterior(after, now)
        upper = transition(after, now).variance
        if i == 1:
            lower = posterior(now, case.schedule.at(2 / 24)).variance
        variance = lower ** (1 - guess.variance_fraction) * upper**guess.variance_fraction
        if i > 1:
            q, p = Normal(weight * x_0, lower.sqrt()), Normal(weight * guess.x_0, variance.sqrt())
            nats.append(kl_divergence(q, p).sum())
        elif case.decoder == "gaussian":
            nats.append(-Normal(guess.x_0, variance.sqrt()).log_prob(x_0).sum())
        else:
            nats.append(-log_probability_8bit(x_0[None], guess.x_0, variance.log()).sum())
    return (24 * torch.stack(nats).mean() / 3).item()


@both_decoders
def test_the_extra_loss_is_lambda_times_the_bound_per_coordinate(decoder):
    case = HybridCase(decoder)
    losses, simple = case.hybrid(0.01), case.simple()
    assert torch.equal(losses.t, simple.t)
    extra = losses.value - simple.value
    assert extra.mean().item() == pytest.approx(0.01 * per_coordinate_bound(case), rel=1e-9)
    torch.testing.assert_close(case.hybrid(0.03).value - simple.value, 3 * extra, rtol=1e-9, atol=1e-12)
    assert losses.mean().item() == pytest.approx(simple.mean().item() + extra.mean().item(), rel=1e-12)


class Tripled(Simple):
    """Weighs every time three times as much."""

    def weight(self, level, parameterization):
        return 3 * super().weight(level, parameterization)


class Unequal(UniformTimes):
    """Times whose losses count from 0.5 to 1.5."""

    def importance(self, t):
        return torch.linspace(0.5, 1.5, 24, dtype=torch.float64).view_as(t)


def test_the_weight_touches_the_denoising_loss_alone_and_the_importance_both():
    case = HybridCase("gaussian")
    times, hybrid, simple = UniformTimes(case.schedule), case.hybrid(0.01), case.simple()
    weighted = case.losses(HybridObjective(times, Tripled(), "gaussian", 0.01))
    torch.testing.assert_close(weighted.value, hybrid.value + 2 * simple.value, rtol=1e-12, atol=1e-14)
    counted = case.losses(HybridObjective(Unequal(case.schedule), Simple(), "gaussian", 0.01))
    assert torch.equal(counted.value, hybrid.value)
    importance = torch.linspace(0.5, 1.5, 24, dtype=torch.float64)
    assert counted.mean().item() == pytest.approx((importance * hybrid.value).mean().item(), rel=1e-12)


def test_the_hybrid_objective_refuses_what_it_cannot_learn():
    times = UniformTimes(LinearChain(24))
    plain = Denoiser(Unlabelled(torch.nn.Identity()), LinearChain(24), Epsilon())
    with pytest.raises(UserError, match=r"this denoiser has none; set learned_variance=true"):
        HybridObjective(times, Simple(), "8bit").check(plain)
    with pytest.raises(UserError, match=r"objective\.decoder must be one of 8bit, gaussian, got 'bytes'"):
        HybridObjective(times, Simple(), "bytes")
    with pytest.raises(UserError, match=r"objective\.factor must be positive, got 0"):
        HybridObjective(times, Simple(), "8bit", 0.0)
