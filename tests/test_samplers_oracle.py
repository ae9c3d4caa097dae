"""Every sampler that diffusers has too walks the same way, state by state: same start, noise, levels and network.

(`DDPMScheduler` and `DDIMScheduler`: tests/test_samplers.py.) diffusers knows two spaces, in which any of our processes
can be written: x / alpha at the noise sigma / alpha, and x / sqrt(alpha² + sigma²), which preserves variance.
"""

import importlib
from itertools import pairwise

import pytest
import torch
from analytic import double

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.levels import CLEAN, seeded_noise
from litdiffusion.diffusion.parameterizations import EDM, V
from litdiffusion.diffusion.samplers import DDIM, Ancestral, DPMSolver2M, Euler, Heun, SDEDPMSolver2M, UniPC
from litdiffusion.diffusion.samplers.base import prior
from litdiffusion.diffusion.schedules import VE, VP, GeometricLadder, LinearChain, LinearFlow, LinearSigma, SubVP

PROCESSES = {
    "linear": LinearChain(),
    "ladder": GeometricLadder(),
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(),
    "edm": LinearSigma(),
}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
N = 12
ROW = V()

every_process = pytest.mark.parametrize("schedule", PROCESSES.values(), ids=PROCESSES)


class FixedNet(torch.nn.Module):
    """A bounded fixed function of x and the level, read as the velocity: it has a meaning where alpha = 0 too."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, level, class_label=None):
        radius, angle = torch.hypot(level.alpha, level.sigma), torch.atan2(level.sigma, level.alpha)
        return ROW.decode(torch.sin(2 * x / radius + 3 * angle) + 0.3 * torch.cos(angle * x), x, level)


class DoubleTorch:
    """torch with float64 in the place of float32, to which diffusers casts in every step."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)


@pytest.fixture
def scheduler(monkeypatch):
    """Makes a scheduler of diffusers in float64 that draws the noise of `seeded_noise(7)`."""
    pytest.importorskip("diffusers", reason="compares with diffusers (extra: dev)")

    def make(file, name, **settings):
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{file}")
        noise = seeded_noise(7)
        monkeypatch.setattr(module, "torch", DoubleTorch())
        monkeypatch.setattr(
            module, "randn_tensor", lambda shape, **_: noise(torch.empty(shape, dtype=torch.float64)), raising=False
        )
        return getattr(module, name)(**settings)

    return make


# The spaces of diffusers: (its sigma, the scale of x) at a level.


def exploding(level):
    return level.ratio, level.alpha


def preserving(level):
    return level.ratio, torch.hypot(level.alpha, level.sigma)


def straight(level):
    return level.t, torch.ones_like(level.t)


def start(schedule):
    return prior(schedule, torch.empty(5, 2, dtype=torch.float64), seeded_noise(0))


def ours(sampler, schedule):
    return [state.x for state in sampler.trajectory(FixedNet(schedule), start(schedule), noise=seeded_noise(7))]


def theirs(scheduler, levels, schedule, space, output=lambda prediction: prediction.eps, corrected=False, **options):
    """diffusers' states at ``levels``, in our scale; its own levels are replaced by these.

    With ``corrected`` a state is what the scheduler made of it afterwards, once the net had answered there.
    """
    scheduler.set_timesteps(N)
    scheduler.sigmas = torch.stack([space(level)[0] for level in levels])
    scheduler.is_scale_input_called = True  # the net is asked here, in our scale
    net, states = FixedNet(schedule), [start(schedule)]
    for t, (now, after) in zip(scheduler.timesteps, pairwise(levels), strict=True):
        out, x = output(net(states[-1], now)), states[-1] / space(now)[1]
        noise = {name: draw(x) for name, draw in options.items()}
        states.append(space(after)[1] * scheduler.step(out, t, x, **noise).prev_sample)
        if corrected:
            states[-2] = space(now)[1] * scheduler.last_sample
    return states


def twice(levels):
    """The levels of Heun's method as diffusers counts them: the first call and the second call of every step."""
    return [levels[0], *(level for level in levels[1:-1] for _ in range(2)), levels[-1]]


def first_calls(states):
    """Of the states at these levels, those that a step ends with."""
    return [*states[:-1:2], states[-1]]


def assert_same(one, other):
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)


@every_process
@pytest.mark.parametrize("grid", ["uniform", "log_snr"])
def test_dpm_solver_is_diffusers_dpm_solver_multistep_of_order_2(grid, schedule, scheduler):
    sampler = DPMSolver2M(N, grid)
    other = scheduler("dpmsolver_multistep", "DPMSolverMultistepScheduler", solver_order=2)
    assert_same(ours(sampler, schedule), theirs(other, sampler.levels(schedule), schedule, preserving))


@every_process
def test_sde_dpm_solver_is_diffusers_sde_dpm_solver_multistep_with_its_noise(schedule, scheduler):
    sampler, noise = SDEDPMSolver2M(N), seeded_noise(7)
    other = scheduler("dpmsolver_multistep", "DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++")
    states = theirs(other, sampler.levels(schedule), schedule, preserving, variance_noise=noise)
    assert_same(ours(sampler, schedule), states)


@every_process
@pytest.mark.parametrize("grid", ["uniform", "log_snr"])
def test_unipc_is_diffusers_unipc_multistep_of_order_2(grid, schedule, scheduler):
    sampler = UniPC(N, grid)
    other = scheduler("unipc_multistep", "UniPCMultistepScheduler", solver_order=2, solver_type="bh2")
    states = theirs(other, sampler.levels(schedule), schedule, preserving, corrected=True)
    assert_same(ours(sampler, schedule), states)


@every_process
def test_euler_in_sigma_over_alpha_is_diffusers_euler_discrete(schedule, scheduler):
    sampler = Euler(N, "karras", coordinate="ratio")
    other = scheduler("euler_discrete", "EulerDiscreteScheduler")
    assert_same(ours(sampler, schedule), theirs(other, sampler.levels(schedule), schedule, exploding))


@every_process
def test_heun_in_sigma_over_alpha_is_diffusers_heun_discrete(schedule, scheduler):
    sampler = Heun(N, "karras", coordinate="ratio")
    other = scheduler("heun_discrete", "HeunDiscreteScheduler")
    states = theirs(other, twice(sampler.levels(schedule)), schedule, exploding)
    assert_same(ours(sampler, schedule), first_calls(states))


@every_process
def test_ancestral_sampling_is_diffusers_euler_ancestral(schedule, scheduler):
    other = scheduler("euler_ancestral_discrete", "EulerAncestralDiscreteScheduler")
    states = theirs(other, DDIM(N).levels(schedule), schedule, exploding)
    assert_same(ours(Ancestral(N), schedule), states)
    assert_same(ours(DDIM(N, eta=1.0), schedule), states)


def velocity(prediction):
    return prediction.eps - prediction.x_0


def test_euler_on_the_straight_path_is_diffusers_flow_match_euler(scheduler):
    schedule = LinearFlow()
    other = scheduler("flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler")
    states = theirs(other, schedule.grid(N), schedule, straight, velocity)
    assert_same(ours(Euler(N), schedule), states)


def test_heun_on_the_straight_path_is_diffusers_flow_match_heun(scheduler):
    schedule = LinearFlow()
    other = scheduler("flow_match_heun_discrete", "FlowMatchHeunDiscreteScheduler")
    states = theirs(other, twice(schedule.grid(N)), schedule, straight, velocity)
    assert_same(ours(Heun(N), schedule), first_calls(states))


class Bounded(torch.nn.Module):
    def forward(self, x, noise_label, class_label=None):
        return torch.sin(2 * x) + 0.3 * x


def test_grid_preconditioning_and_euler_of_edm_are_those_of_diffusers_edm_euler(scheduler):
    schedule, net = LinearSigma(0.01, 60.0), Bounded()
    settings = {"sigma_min": 0.01, "sigma_max": 60.0, "sigma_data": 0.7}
    other = scheduler("edm_euler", "EDMEulerScheduler", **settings)
    other.set_timesteps(N)
    states = [start(schedule)]
    for t in other.timesteps:
        out = net(other.scale_model_input(states[-1], t), None)
        states.append(other.step(out, t, states[-1]).prev_sample)
    sampler = Euler(N, "karras")
    sigmas = torch.stack([level.sigma for level in sampler.levels(schedule)])
    torch.testing.assert_close(sigmas, other.sigmas, rtol=1e-10, atol=0)
    denoiser = Denoiser(net, schedule, EDM(0.7))
    assert_same([state.x for state in sampler.trajectory(denoiser, states[0])], states)


def karras(predict, x, levels, noise, churn, low, high, inflation):
    """Algorithm 2 of Karras et al. (2022), line by line, with sigma not above the first."""
    sigmas, states = [level.sigma.item() for level in levels], [x]
    for sigma, after in pairwise(sigmas):
        gamma = min(churn / (len(sigmas) - 1), 2**0.5 - 1) if low <= sigma <= high else 0.0
        raised = min(sigma * (1 + gamma), sigmas[0])
        if gamma > 0:
            x = x + (raised**2 - sigma**2) ** 0.5 * inflation * noise(x)
        slope = (x - predict(x, raised)) / raised
        guess = x + (after - raised) * slope
        if after > 0:
            slope = (slope + (guess - predict(guess, after)) / after) / 2
        x = x + (after - raised) * slope
        states.append(x)
    return states


@pytest.mark.parametrize("schedule", [LinearSigma(), VE()], ids=["edm", "ve"])
@pytest.mark.parametrize(("churn", "low", "high", "inflation"), [(3.0, 0.0, 1e9, 1.0), (40.0, 0.05, 20.0, 1.007)])
def test_heun_with_churn_is_algorithm_2_of_karras(churn, low, high, inflation, schedule):
    sampler = Heun(N, "karras", "ratio", churn=churn, churn_min=low, churn_max=high, churn_noise=inflation)

    def predict(x, sigma):
        level = CLEAN._replace(sigma=double(sigma))
        return FixedNet(schedule)(x, level).x_0

    levels = sampler.levels(schedule)
    states = karras(predict, start(schedule), levels, seeded_noise(7), churn, low, high, inflation)
    assert_same(ours(sampler, schedule), states)
