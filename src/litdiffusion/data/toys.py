"""Toy densities: pure functions ``(n, generator) -> (n, d)`` float32, in their own units.

The 1-D mixture, the ramp and the spiral come from the toy source named in `docs/decisions.md`. The two Gaussians
come from the score matching source; such a pair shows why Langevin sampling needs many noise levels (Generative
modeling by estimating gradients of the data distribution, Song and Ermon 2019, arXiv 1907.05600).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal


class Mixture(NamedTuple):
    """A mixture of K axis-aligned Gaussians: ``p(x) = sum_k weights[k] N(x; means[k], diag(std²))``.

    ``weights`` (K,) sum to 1, ``means`` (K, d), ``std`` (d,), all float32.
    """

    weights: Tensor
    means: Tensor
    std: Tensor

    def sample(self, n: int, generator: Generator) -> Tensor:
        """n independent points (n, d)."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator)
        return self.means[component] + self.std * noise

    def log_density(self, x: Tensor) -> Tensor:
        """``log p(x)`` (n,) of points (n, d), in nats."""
        parts = Independent(Normal(self.means, self.std.expand_as(self.means)), 1)
        return MixtureSameFamily(Categorical(self.weights), parts).log_prob(x)

    def standardised(self, mean: Tensor, std: Tensor) -> "Mixture":
        """The mixture of ``(x - mean) / std``, with ``mean`` and ``std`` (d,)."""
        return Mixture(self.weights, (self.means - mean) / std, self.std / std)


GAUSSIAN_MIXTURE = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-0.5], [0.5]]), torch.tensor([0.2]))
TWO_GAUSSIANS = Mixture(torch.tensor([1 / 3, 2 / 3]), torch.tensor([[-10.0, 1.0], [10.0, 0.0]]), torch.ones(2))


def gaussian_mixture(n: int, generator: Generator) -> Tensor:
    """Points (n, 1) of 0.3 N(-1/2, 0.2²) + 0.7 N(1/2, 0.2²): mean 0.2, variance 0.25."""
    return GAUSSIAN_MIXTURE.sample(n, generator)


def two_gaussians(n: int, generator: Generator) -> Tensor:
    """Points (n, 2) of unit Gaussians at (-10, 1), weight 1/3, and (10, 0), weight 2/3: too far apart to mix."""
    return TWO_GAUSSIANS.sample(n, generator)


def ramp(n: int, generator: Generator, dim: int = 2) -> Tensor:
    """Points (n, dim): each coordinate is the lesser of two uniforms; density 2(1 - x), mean 1/3, variance 1/18."""
    return torch.rand(2, n, dim, generator=generator).amin(0)


def spiral(n: int, generator: Generator) -> Tensor:
    """Points (n, 2) ``rho (cos theta, sin theta)``: theta = 3 pi u, rho = .25 + .65 u + .15 v, with u, v uniform."""
    u, v = torch.rand(2, n, generator=generator)
    rho, theta = 0.25 + 0.65 * u + 0.15 * v, 3 * math.pi * u
    return torch.stack((rho * theta.cos(), rho * theta.sin()), dim=1)


def spiral_angle(x: Tensor) -> Tensor:
    """The angle theta (n,) of points (n, 2) of `spiral`, from 0 at its inner end to 3 pi at its outer end.

    The polar angle is known up to whole turns; the turn is the one whose radius is nearest: ``rho`` without v gives
    theta to within ``0.075 / 0.65 * 3 pi = 1.09`` radians, less than half a turn, so theta is exact.
    """
    rough = 3 * math.pi * (x.norm(dim=1) - 0.325) / 0.65
    polar = torch.atan2(x[:, 1], x[:, 0])
    return polar + 2 * math.pi * ((rough - polar) / (2 * math.pi)).round()


def checkerboard(n: int, generator: Generator) -> Tensor:
    """Points (n, 2), uniform on the 8 unit squares of [-2, 2]² for which floor(x) + floor(y) is even."""
    x = 4 * torch.rand(n, generator=generator) - 2
    upper = torch.randint(2, (n,), generator=generator)
    y = torch.rand(n, generator=generator) + 2 * upper - 2 + x.floor().remainder(2)
    return torch.stack((x, y), dim=1)


def moons(n: int, generator: Generator) -> Tensor:
    """Points (n, 2) of two interleaved half circles of radius 1 with noise of std 0.05; centre (0.5, 0.25).

    scikit-learn spaces the points evenly along the arcs, so their scatter is slightly below that of independent draws.
    """
    from sklearn.datasets import make_moons

    return _float(make_moons(n, noise=0.05, random_state=_numpy_seed(generator))[0])


def swiss_roll(n: int, generator: Generator) -> Tensor:
    """Points (n, 2) ``t (cos t, sin t)``: t uniform on [1.5 pi, 4.5 pi], with noise of std 0.5."""
    from sklearn.datasets import make_swiss_roll

    return _float(make_swiss_roll(n, noise=0.5, random_state=_numpy_seed(generator))[0][:, [0, 2]])


def _numpy_seed(generator: Generator) -> int:
    return int(torch.randint(2**31, (1,), generator=generator))


def _float(points: np.ndarray) -> Tensor:
    return torch.from_numpy(points).float()
