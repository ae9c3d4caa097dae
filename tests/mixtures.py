"""Data whose density is known at every noise level, for the tests of likelihoods."""

import math
from itertools import pairwise

import torch
from analytic import double
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from litdiffusion.diffusion.denoisers import GaussianMixtureDenoiser
from litdiffusion.diffusion.gaussian import posterior, transition


class Mixture:
    """sum_k w_k N(mean_k, std_k²)."""

    def __init__(self, weights, means, stds):
        self.weights, self.means = double(weights), double(means)
        self.stds = double(stds)[:, None].expand_as(self.means)

    def denoiser(self, schedule):
        return GaussianMixtureDenoiser(schedule, self.weights, self.means, self.stds)

    def log_density(self, x, alpha=1.0, sigma=0.0):
        """Of alpha x_0 + sigma eps."""
        stds = (alpha**2 * self.stds**2 + sigma**2).sqrt()
        parts = Independent(Normal(alpha * self.means, stds), 1)
        return MixtureSameFamily(Categorical(self.weights), parts).log_prob(x)


LINE = Mixture([0.3, 0.7], [[-1.4], [0.6]], [0.4, 0.4])
"""Mean 0, variance 1."""
PLANE = Mixture([0.2, 0.5, 0.3], [[-1.0, 0.5], [0.8, 0.3], [0.0, -1.2]], [0.3, 0.5, 0.4])

MEAN, STD = 1.0, 0.5
GAUSSIAN = Mixture([1.0], [[MEAN]], [STD])
ENTROPY = 0.5 * math.log(2 * math.pi * math.e * STD**2)
# The bound is quadratic in x_0 and eps for Gaussian data: two points of each take its exact mean.
TWO_BY_TWO = double([[MEAN - STD], [MEAN - STD], [MEAN + STD], [MEAN + STD]])


def signs(x):
    return double([[1.0], [-1.0], [1.0], [-1.0]])


def true_spreads(schedule):
    """Where on the scale from posterior to forward log Var(x_s | x_t) lies for N(MEAN, STD²), steps 1..T."""
    levels = schedule.grid()[::-1]
    found, floor = [], posterior(levels[1], levels[2]).variance
    for after, now in pairwise(levels):
        weight, _, lower = posterior(after, now)
        unexplained = STD**2 * now.sigma**2 / (now.alpha**2 * STD**2 + now.sigma**2)
        true, upper = lower + weight**2 * unexplained, transition(after, now).variance
        lower = floor if after.is_clean else lower
        found.append((true / lower).log() / (upper / lower).log())
    return torch.stack(found)


class Unlabelled(torch.nn.Module):
    """A net that is told x alone."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, noise_label, class_label=None):
        return self.net(x)
