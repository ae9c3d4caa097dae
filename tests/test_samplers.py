"""Samplers on analytic denoisers, without training and without Monte Carlo, and against diffusers' schedulers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic import MEAN, STD, double, gaussian, mixture

from litdiffusion.diffusion.gaussian import posterior, transition
from litdiffusion.diffusion.levels import Prediction, per_sample_noise, seeded_noise
from litdiffusion.diffusion.samplers import DDIM, Ancestral
from litdiffusion.diffusion.samplers.base import prior
from litdiffusion.diffusion.schedules import CosineChain, DiscreteSchedule, LinearChain
from litdiffusion.errors import UserError


def moments(sampler, schedule):
    """Mean and variance of the samples on N(1, 0.25): every step is affine, x -> slope x + offset + gain z."""
    denoiser, mean, variance = gaussian(schedule), 0.0, schedule.prior_std**2
    probe = double([[0.0], [1.0], [0.0]])
    for now, after in pairwise(sampler.levels(schedule)):
        out = sampler.step(probe, denoiser(probe, now), now, after, lambda x: double([[0.0], [0.0], [1.0]]))
        offset, slope, gain = out[0].item(), (out[1] - out[0]).item(), (out[2] - out[0]).item()
        mean, variance = slope * mean + offset, slope**2 * variance + gain**2
    return mean, variance


@pytest.mark.parametrize(
    ("steps", "kind", "expected"),
    [(50, "posterior", 0.1966), (50, "forward", 0.2662), (1000, "posterior", 0.2461), (1000, "forward", 0.2508)],
)
def test_ancestral_on_a_gaussian_ends_at_its_known_mean_and_variance(steps, kind, expected):
    mean, variance = moments(Ancestral(variance=kind), LinearChain(steps))
    assert variance == pytest.approx(expected, abs=5e-5)
    assert mean == pytest.approx(1.0, abs=5e-5)


def test_both_ancestral_variances_close_in_on_the_data_as_the_chain_is_refined():
    errors = {
        k: [moments(Ancestral(variance=k), LinearChain(n))[1] - 0.25 for n in (50, 200)]
        for k in ("posterior", "forward")
    }
    assert errors["posterior"][0] < errors["posterior"][1] < 0 < errors["forward"][1] < errors["forward"][0]


def test_the_mnist_source_schedule_starts_from_the_wrong_prior_and_misses_the_mean():
    with pytest.warns(UserWarning, match="wrong prior"):
        schedule = LinearChain(200, 1e-4, 0.02)
    assert moments(Ancestral(), schedule)[0] == pytest.approx(0.9633, abs=5e-5)


@pytest.mark.parametrize("kind", ["posterior", "forward"])
@pytest.mark.parametrize("steps", [5, 17, 60])
def test_respaced_ancestral_steps_use_mean_and_variance_between_the_levels_visited(kind, steps):
    schedule = LinearChain(60)
    sampler = Ancestral(steps, kind)
    levels = sampler.levels(schedule)
    assert len(levels) == steps + 1
    for now, after in pairwise(levels[:-1]):
        zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
        still = sampler.step(zero, Prediction(one, zero), now, after, torch.zeros_like)
        noisy = sampler.step(zero, Prediction(one, zero), now, after, torch.ones_like)
        bar_t, bar_s = now.alpha.item() ** 2, after.alpha.item() ** 2  # Ho's formulas with beta of the jump
        beta = 1 - bar_t / bar_s
        assert still.item() == pytest.approx(bar_s**0.5 * beta / (1 - bar_t), rel=1e-9)
        expected = beta if kind == "forward" else beta * (1 - bar_s) / (1 - bar_t)
        assert (noisy - still).item() ** 2 == pytest.approx(expected, rel=1e-9)


def test_one_jump_from_pure_noise_returns_the_denoiser_s_estimate():
    schedule = CosineChain(50)
    x = torch.randn(6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    estimate = mixture(schedule)(x, schedule.at(1.0)).x_0
    for sampler in (Ancestral(1), Ancestral(1, "forward"), DDIM(1), DDIM(1, eta=1.0)):
        torch.testing.assert_close(sampler.sample(mixture(schedule), x), estimate, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [None, 1, 7, 30])
def test_ddim_with_eta_1_is_ancestral_with_posterior_variance(steps):
    schedule = LinearChain(60)
    x = torch.randn(16, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ddim = DDIM(steps, eta=1.0).trajectory(mixture(schedule), x, noise=seeded_noise(1))
    ancestral = Ancestral(steps).trajectory(mixture(schedule), x, noise=seeded_noise(1))
    for one, other in zip(ddim, ancestral, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [None, 1, 7, 30])
def test_ddim_with_eta_0_is_eulers_method_in_the_coordinate_sigma_over_alpha(steps):
    schedule = LinearChain(60)
    denoiser, sampler = mixture(schedule), DDIM(steps)
    x = torch.randn(16, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scaled = x / schedule.at(1.0).alpha
    for (now, after), state in zip(
        pairwise(sampler.levels(schedule)), list(sampler.trajectory(denoiser, x))[1:], strict=True
    ):
        slope = denoiser(now.alpha * scaled, now).eps  # d(x / alpha) / d(sigma / alpha) = eps
        scaled = scaled + (after.sigma / after.alpha - now.sigma / now.alpha) * slope
        torch.testing.assert_close(state.x, after.alpha * scaled, rtol=0, atol=1e-10)


@pytest.mark.parametrize("eta", [0.3, 0.7])
def test_ddim_keeps_the_marginals_of_a_point_mass_for_every_eta(eta):
    schedule = LinearChain(50)
    sampler, point = DDIM(10, eta), double([[2.0]])
    for now, after in pairwise(sampler.levels(schedule)):
        x_t = now.alpha * point + now.sigma * double([[1.0], [0.0]])
        eps = (x_t - now.alpha * point) / now.sigma
        zero, one = (
            sampler.step(x_t, Prediction(point, eps), now, after, f) for f in (torch.zeros_like, torch.ones_like)
        )
        slope, gain = (zero[0] - zero[1]).item(), (one[0] - zero[0]).item()
        assert zero[1].item() == pytest.approx((after.alpha * 2).item(), rel=1e-12)
        assert slope**2 + gain**2 == pytest.approx(after.sigma.item() ** 2, rel=1e-9, abs=1e-15)
        assert gain == pytest.approx(eta * posterior(after, now).variance.item() ** 0.5, rel=1e-9, abs=1e-15)


def test_ddim_with_eta_0_converges_at_order_1_to_the_exact_probability_flow():
    schedule = LinearChain(4096)
    start = schedule.at(1.0)
    marginal_std = (start.alpha**2 * STD**2 + start.sigma**2).sqrt()
    x = double([[-1.5], [0.2], [2.0]])
    exact = MEAN + STD * (x - start.alpha * MEAN) / marginal_std  # the flow scales with the marginal deviation
    errors = [(DDIM(n).sample(gaussian(schedule), x) - exact).abs().max().item() for n in (64, 128, 256, 512)]
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(slopes, 1, atol=0.15)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral(variance="forward"), DDIM(), DDIM(eta=1.0)])
@pytest.mark.parametrize("steps", [None, 9])
def test_the_last_step_adds_no_noise(sampler, steps):
    sampler, schedule = sampler.respaced(steps), LinearChain(40)
    now, after = sampler.levels(schedule)[-2:]
    assert transition(after, now).variance > 0
    x = torch.randn(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prediction = mixture(schedule)(x, now)
    found = sampler.step(x, prediction, now, after, lambda x: torch.full_like(x, 1e6))
    torch.testing.assert_close(found, prediction.x_0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral(7, "forward"), DDIM(7), DDIM(5, eta=0.5)])
def test_trajectory_starts_at_the_prior_visits_each_level_and_ends_at_the_sample(sampler):
    schedule = LinearChain(40)
    x = torch.randn(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    states = list(sampler.trajectory(mixture(schedule), x, noise=seeded_noise(3)))
    assert len(states) == (sampler.steps or 40) + 1
    assert states[0].x is x
    assert torch.equal(x, kept)  # nothing is edited in place
    assert [s.level for s in states] == sampler.levels(schedule)
    assert torch.equal(states[-1].x, sampler.sample(mixture(schedule), x, noise=seeded_noise(3)))
    assert not torch.equal(states[-1].x, states[-2].x)


def test_sampling_records_no_gradients_and_leaves_gradient_mode_alone_between_states():
    schedule = LinearChain(40)
    denoiser = mixture(schedule)
    denoiser.means = torch.nn.Parameter(denoiser.means)
    for state in Ancestral(4).trajectory(denoiser, torch.zeros(2, 1).double()):
        assert torch.is_grad_enabled()
        assert not state.x.requires_grad


def test_respaced_changes_the_steps_of_a_copy_only():
    sampler = DDIM(10, eta=0.4)
    other = sampler.respaced(3)
    assert (sampler.steps, other.steps, other.eta) == (10, 3, 0.4)
    assert len(other.levels(LinearChain(40))) == 4


@pytest.mark.parametrize("sampler", [Ancestral(6), DDIM(6, eta=1.0)])
@pytest.mark.parametrize("sizes", [(1, 4), (2, 3), (4, 1)])
def test_with_noise_per_sample_a_sample_does_not_depend_on_its_batch(sampler, sizes):
    schedule = LinearChain(40)

    def draw(seeds):
        noise = per_sample_noise(seeds)
        return sampler.sample(
            mixture(schedule), prior(schedule, torch.empty(len(seeds), 1).double(), noise), noise=noise
        )

    together = draw(list(range(5)))
    apart = torch.cat([draw(list(range(sizes[0]))), draw(list(range(sizes[0], 5)))])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-13)
    assert len(together.unique()) == 5


def test_prior_scales_the_noise_to_the_schedule():
    schedule = LinearChain(40)
    schedule.prior_std = 3.0
    like = torch.empty(4, 2, dtype=torch.float64)
    assert torch.equal(prior(schedule, like, seeded_noise(0)), 3 * seeded_noise(0)(like))


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_ddim_refuses_an_eta_outside_0_and_1(eta):
    with pytest.raises(UserError, match=rf"eta must lie in \[0, 1\] .*got {eta}"):
        DDIM(eta=eta)


def test_ancestral_refuses_an_unknown_variance():
    with pytest.raises(UserError, match="one of posterior, forward, learned, got 'fixed'"):
        Ancestral(variance="fixed")


# Against diffusers. Its index t = 0..T-1 is our i = t + 1, and "trailing" spacing is our grid.

T = 40
BETAS = torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)


class FixedNet(torch.nn.Module):
    """A bounded fixed function of x and the index i, read as the noise."""

    schedule = DiscreteSchedule(BETAS)

    def eps(self, x, i):
        return torch.sin(2 * x + i / 7) + 0.3 * torch.cos(i / T * x)

    def forward(self, x, level, class_label=None):
        eps = self.eps(x, self.schedule.noise_label(level))
        return Prediction((x - level.sigma * eps) / level.alpha, eps)


def theirs(scheduler, steps, x, step):
    """diffusers' states; its float32 tables are replaced by the same ones in float64."""
    scheduler.betas, scheduler.alphas = BETAS, 1 - BETAS
    scheduler.alphas_cumprod = (1 - BETAS).cumprod(0)
    scheduler.set_timesteps(steps)
    states = [x]
    for t in scheduler.timesteps:
        x = step(FixedNet().eps(x, t.double() + 1), t, x).prev_sample
        states.append(x)
    return states


def difference(sampler, states, seed):
    """Our states less theirs, from the same start with the same noise."""
    ours = [state.x for state in sampler.trajectory(FixedNet(), states[0], noise=seeded_noise(seed))]
    return torch.stack(ours) - torch.stack(states)


def start():
    return torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "their_kind"), [("posterior", "fixed_small"), ("forward", "fixed_large")])
@pytest.mark.parametrize("steps", [T, 10])
def test_ancestral_walks_the_trajectory_of_diffusers_ddpm_scheduler(kind, their_kind, steps, monkeypatch):
    module = pytest.importorskip("diffusers.schedulers.scheduling_ddpm", reason="compares with diffusers (extra: dev)")
    scheduler = module.DDPMScheduler(
        T, trained_betas=BETAS.tolist(), variance_type=their_kind, clip_sample=False, timestep_spacing="trailing"
    )
    noise, drawn = seeded_noise(5), []

    def draw(shape, dtype, **_):
        drawn.append(noise(torch.empty(shape, dtype=dtype)))
        return drawn[-1]

    monkeypatch.setattr(module, "randn_tensor", draw)
    found = difference(Ancestral(steps, kind), theirs(scheduler, steps, start(), scheduler.step), seed=5)
    assert found[:-1].abs().max() < 1e-8
    if steps < T and kind == "forward":  # diffusers adds noise to its last respaced step into clean data, we do not
        found[-1] += (1 - FixedNet.schedule.grid(steps)[-2].alpha ** 2).sqrt() * drawn[-1]
    assert found[-1].abs().max() < 1e-8


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [T, 10])
def test_ddim_walks_the_trajectory_of_diffusers_ddim_scheduler(eta, steps):
    module = pytest.importorskip("diffusers.schedulers.scheduling_ddim", reason="compares with diffusers (extra: dev)")
    scheduler = module.DDIMScheduler(
        T, trained_betas=BETAS.tolist(), clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    noise = seeded_noise(6)

    def step(eps, t, x):
        return scheduler.step(eps, t, x, eta=eta, variance_noise=noise(x) if eta > 0 else None)

    found = difference(DDIM(steps, eta), theirs(scheduler, steps, start(), step), seed=6)
    assert found.abs().max() < 1e-8
