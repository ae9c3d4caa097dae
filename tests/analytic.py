"""What the samplers' tests share: processes, exact denoisers, the exact flow, moments without Monte Carlo."""

from functools import cache

import numpy as np
import parts
import torch
from scipy.integrate import solve_ivp

from litdiffusion.diffusion.denoisers import GaussianMixtureDenoiser
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules import GeometricLadder, LinearChain

MEAN, STD = 1.0, 0.5

# Chains are long, so that grids of up to 256 steps fall where they should but for a rounding.
PROCESSES = {
    "linear": LinearChain(16384),
    "ladder": GeometricLadder(16384, 0.01, 10.0),
} | parts.CONTINUOUS
CONTINUOUS = list(parts.CONTINUOUS)
# Even in log SNR where it can be: on the chain of betas that grid needs levels between the first ones.
GRIDS = dict.fromkeys(PROCESSES, "log_snr") | {"linear": "quadratic"}


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian(schedule):
    return GaussianMixtureDenoiser(schedule, double([1.0]), double([[MEAN]]), double([[STD]]))


def mixture(schedule):
    return GaussianMixtureDenoiser(schedule, double([0.4, 0.6]), double([[-1.0], [0.8]]), double([[0.5], [0.7]]))


def starts(schedule):
    """A few places where walks begin, (4, 1)."""
    return schedule.prior_std * double([[-1.5], [-0.4], [0.2], [0.9]])


def flow_to(schedule, last):
    """Where the probability flow of `mixture` carries `starts` to the level ``last``, and x_0 there.

    Integrated over the angle phi = atan(sigma / alpha), in which the flow of y = x / sqrt(alpha² + sigma²) is the same
    for every process, by an integrator of scipy's.
    """
    denoiser, first = mixture(schedule), schedule.at(1.0)

    def slope(phi, y):
        level = Level(*double([0.0, max(np.cos(phi), 0.0), np.sin(phi)]))
        x_0, eps, _ = denoiser(torch.from_numpy(y)[:, None], level)
        return (level.alpha * eps - level.sigma * x_0)[:, 0].numpy()

    ends = [float(torch.atan2(level.sigma, level.alpha)) for level in (first, last)]
    y = (starts(schedule) / torch.hypot(first.alpha, first.sigma))[:, 0].numpy()
    y = solve_ivp(slope, ends, y, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    x = torch.from_numpy(y)[:, None] * torch.hypot(last.alpha, last.sigma)
    return x, denoiser(x, last).x_0


@cache
def flowed(name):
    """The same to the cleanest trained level, computed once for all tests."""
    return flow_to(PROCESSES[name], PROCESSES[name].at(PROCESSES[name].t_min))


class Impulses:
    """A `Noise` that is zero but for one unit per sample: sample i + 2 of a batch gets it at the i-th call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        z = torch.zeros_like(x)
        z[self.calls + 1 : self.calls + 2] = 1.0
        return z


def moments(sampler, schedule, mean, variance, draws):
    """Mean and variance of the samples on N(1, 0.25) from a Gaussian start: exact, for every walk is affine in all of
    its noise. Sample 0 starts at 0, sample 1 at 1, and every other one feels one of at most ``draws`` draws.
    """
    x = torch.zeros(draws + 2, 1, dtype=torch.float64)
    x[1] = 1.0
    noise = Impulses()
    ends = sampler.sample(gaussian(schedule), x, noise=noise)[:, 0]
    assert noise.calls <= draws
    gains = ends[1:] - ends[0]
    return (ends[0] + gains[0] * mean).item(), (gains[0] ** 2 * variance + (gains[1:] ** 2).sum()).item()


def marginal(level):
    """Mean and variance of N(1, 0.25) noised to a level."""
    return (level.alpha * MEAN).item(), (level.alpha**2 * STD**2 + level.sigma**2).item()
