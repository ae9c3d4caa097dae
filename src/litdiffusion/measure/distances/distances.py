"""Wasserstein distances between two samples, and the value they take when nothing is wrong."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from litdiffusion.measure.distances.pairs import checked_pair

Distance = Callable[[Tensor, Tensor], float]
"""A distance between two samples (n, d) and (m, d)."""


class NoiseFloor(NamedTuple):
    """Mean and standard deviation of a distance over repeated pairs of independent data samples."""

    mean: float
    std: float


def wasserstein_1d(x: Tensor, y: Tensor) -> float:
    """The exact W1 distance of two one-dimensional samples, in units of the data.

    ``W1 = ∫_0^1 |F_x^{-1}(u) - F_y^{-1}(u)| du``; with n = m the mean of ``|x_(i) - y_(i)|`` over the sorted
    samples. Shapes (n,) or (n, 1) and (m,) or (m, 1). Two samples of one law are O((1/n + 1/m)^1/2) apart,
    never 0. Raises ValueError on other shapes, empty samples and non-finite values.
    """
    x, y = checked_pair(x.reshape(len(x), -1), y.reshape(len(y), -1))
    if x.shape[1] != 1:
        raise ValueError(f"wasserstein_1d takes samples (n, 1), got d = {x.shape[1]}: use sliced_wasserstein")
    a, b, mass = _coupled(x, y)
    return float(mass @ (a - b).abs()[:, 0])


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 200, seed: int = 0) -> float:
    """The sliced W2 distance of two samples (n, d) and (m, d), d >= 2, in units of the data.

    ``SW2² = mean over unit directions w of W2²(w·x, w·y)``, each 1-D W2 exact (sorted samples, also for n !=
    m); the directions are a pure function of ``seed`` and d. N(0, I) and N(mu, I) are ``|mu| / sqrt(d)``
    apart, N(0, I) and N(0, s² I) are ``|s - 1|`` apart. Two samples of one law are O((1/n + 1/m)^1/2) apart
    (see `noise_floor`); the directions add a relative error of order ``projections^-1/2`` that both sides of
    a comparison share. Source: Sliced and Radon Wasserstein Barycenters of Measures, Bonneel, Rabin, Peyré,
    Pfister 2015; Wasserstein Barycenter and its Application to Texture Mixing, Rabin, Peyré, Delon, Bernot
    2011. Raises ValueError on d = 1, unequal d, empty samples and non-finite values.
    """
    x, y = checked_pair(x, y)
    if x.shape[1] < 2:
        raise ValueError("sliced_wasserstein takes samples (n, d) with d >= 2, got d = 1: use wasserstein_1d")
    directions = _directions(x.shape[1], projections, seed).to(x.device)
    a, b, mass = _coupled(x @ directions, y @ directions)
    return float((mass @ (a - b).square()).mean().sqrt())


def distance_for(dimension: int) -> Distance:
    """The distance this framework reports for samples (n, ``dimension``): W1 where d = 1, else sliced W2."""
    return wasserstein_1d if dimension == 1 else sliced_wasserstein


def noise_floor(
    draw: Callable[[int, int], Tensor], n: int, repeats: int = 5, distance: Distance = sliced_wasserstein
) -> NoiseFloor:
    """The distance of two independent data samples of size n: what a perfect sampler would score.

    ``draw(n, seed)`` returns n fresh data points and is called with seeds 0 .. 2·repeats - 1. The mean falls
    as O(n^-1/2); std is over the repeats (0 for a single one). Report a model's distance as a multiple of
    the mean.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    pairs = [(draw(n, 2 * i), draw(n, 2 * i + 1)) for i in range(repeats)]
    values = torch.tensor([distance(x, y) for x, y in pairs], dtype=torch.float64)
    return NoiseFloor(float(values.mean()), float(values.std(correction=0)))


def mode_shares(x: Tensor, centres: Tensor) -> list[float]:
    """The share of the points (n, d) whose nearest centre is each of (K, d): the weights of well separated modes."""
    nearest = torch.cdist(x.detach().double(), centres.to(x.device).double()).argmin(dim=1)
    return (torch.bincount(nearest, minlength=len(centres)).double() / max(len(x), 1)).tolist()


def share_within(x: Tensor, radius: float) -> float:
    """The share of the points (n, d) whose Euclidean distance from the origin is at most ``radius``."""
    return float((x.detach().double().norm(dim=1) <= radius).double().mean())


def _directions(dimension: int, count: int, seed: int) -> Tensor:
    """``count`` uniform unit vectors as the columns of a (d, count) float64 matrix."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, dimension, generator=generator, dtype=torch.float64).T
    return normal / normal.norm(dim=0)


def _sorted(x: Tensor) -> Tensor:
    """Each column of (n, k) in rising order. numpy's sort is several times faster on the CPU: no indices."""
    if x.device.type != "cpu":
        return x.sort(dim=0).values
    return torch.from_numpy(np.sort(x.T.contiguous().numpy(), axis=1)).T


def _coupled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The optimal 1-D coupling of each column of (n, k) and (m, k): paired values (p, k) and their masses
    (p,).

    Both quantile functions are steps, with edges i/n and j/m; in units of 1/(n·m) the edges are exact
    integers.
    """
    x, y = _sorted(x), _sorted(y)
    n, m = len(x), len(y)
    if n == m:
        return x, y, x.new_full((n,), 1 / n)
    edges = torch.cat((torch.arange(n + 1) * m, torch.arange(m + 1) * n)).unique().to(x.device)
    left = edges[:-1]
    return x[left // m], y[left // n], edges.diff().double() / (n * m)
