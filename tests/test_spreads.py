"""The spreads that are printed against the true ones: the deviation of a number over 200 small sets of samples."""

from functools import partial

import pytest
import torch
from torch import Tensor

from litdiffusion.data import GaussianMixture
from litdiffusion.measure.distances import (
    Estimate,
    Moments,
    copying_check,
    density_coverage,
    frechet_estimate,
    kernel_distance,
    mean_estimate,
    precision_recall,
    share_error,
)
from litdiffusion.measure.quality import VectorQuality
from litdiffusion.measure.quality.modes import mode_estimates


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ratio(estimates: list[Estimate]) -> float:
    """The root mean square of the stated spreads over the true one; 200 values know a deviation to 5 %."""
    values, spreads = torch.tensor([each[:2] for each in estimates], dtype=torch.float64).T
    return float(spreads.square().mean().sqrt() / values.std())


def labels(shares: list[float], n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.bincount(
            torch.multinomial(torch.tensor(shares), n, replacement=True, generator=generator), minlength=len(shares)
        )
        / n
    )


SHARES = {
    "far, 2 modes": ([0.5, 0.5], [0.3, 0.7], 0.85, 1.15),
    "far, 10 classes": ([0.05] * 5 + [0.15] * 5, [0.1] * 10, 0.85, 1.15),
    "perfect, 2 modes": ([0.3, 0.7], [0.3, 0.7], 1.0, 1.35),
    "perfect, 10 classes": ([0.1] * 10, [0.1] * 10, 1.0, 1.35),
}


@pytest.mark.parametrize(("shares", "data", "low", "high"), SHARES.values(), ids=SHARES)
def test_errors_of_shares_are_counted_together(shares, data, low, high):
    found = [share_error(labels(shares, 500, seed), torch.tensor(data), 500, seed) for seed in range(200)]
    assert low < ratio(found) < high


def test_the_error_of_two_modes_has_the_spread_of_one_share():
    """Both modes miss by the same amount: sqrt(p (1 - p) / n), not half the norm of both, 0.71 of it."""
    data = GaussianMixture(batch_size=10, val_size=20, size=200, seed=0)
    data.load()
    samples = torch.where(torch.arange(900)[:, None] < 450, *data.mixture.means.flatten()).double()
    found = mode_estimates(samples, data)["mode_error"]
    assert found.value == pytest.approx(0.2, abs=1e-6)
    assert found.spread == pytest.approx((0.25 / 900) ** 0.5, rel=0.08)


FRECHET = {"perfect": (1.0, 0.0, 1.15, 1.6), "near": (1.05, 0.1, 0.95, 1.3), "far": (1.3, 0.5, 0.88, 1.15)}


@pytest.mark.parametrize(("scale", "shift", "low", "high"), FRECHET.values(), ids=FRECHET)
@pytest.mark.parametrize("d", [3, 12])
def test_the_frechet_spread_is_true_far_from_the_data_and_at_most_sqrt_2_too_large(d, scale, shift, low, high):
    real = Moments(torch.zeros(d).double(), torch.eye(d).double(), 1)
    assert low < ratio([frechet_estimate(scale * normal(400, d, seed) + shift, real) for seed in range(200)]) < high


def test_the_frechet_effects_are_those_of_samples_that_are_left_out():
    """The jackknife, 300 distances of 299 samples each, is an independent way to the same first order."""
    x, real = 1.2 * normal(300, 3, 0) + 0.2, Moments(torch.zeros(3).double(), torch.eye(3).double(), 1)
    left = torch.tensor([frechet_estimate(torch.cat((x[:i], x[i + 1 :])), real).value for i in range(300)]).double()
    jackknife = (299 / 300 * (left - left.mean()).square().sum()).sqrt()
    assert frechet_estimate(x, real).spread == pytest.approx(float(jackknife), rel=0.02)
    flat = torch.cat((x, torch.zeros(300, 1).double()), 1)  # a direction without variance has no effect
    wide = Moments(torch.zeros(4).double(), torch.eye(4).double(), 1)
    assert frechet_estimate(flat, wide).spread == pytest.approx(frechet_estimate(x, real).spread, rel=1e-6)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.5, 0.3)])
def test_the_kernel_distance_s_spread_is_over_both_sides(scale, shift):
    found = [kernel_distance(scale * normal(100, 3, 2 * k) + shift, normal(100, 3, 2 * k + 1)) for k in range(200)]
    assert 0.8 < ratio(found) < 1.2


BALLS = {
    "precision": (precision_recall, 0.85, 1.2),
    "recall": (precision_recall, 0.6, 1.1),
    "density": (density_coverage, 0.85, 1.2),
    "coverage": (density_coverage, 0.55, 1.1),
}


@pytest.mark.parametrize(("name", "measure", "low", "high"), [(name, *row) for name, row in BALLS.items()])
def test_spreads_at_fixed_balls_are_below_the_true_ones_by_the_stated_factors(name, measure, low, high):
    """New samples beside the same 100 real points."""
    real = normal(100, 3, 999)
    assert low < ratio([getattr(measure(1.2 * normal(100, 3, k), real), name) for k in range(200)]) < high


def test_the_share_of_copies_and_a_mean_have_true_spreads():
    train = normal(300, 3, 999)
    shares = [copying_check(normal(150, 3, 2 * k), train, normal(100, 3, 2 * k + 1), 0.05).share for k in range(200)]
    assert 0.8 < ratio(shares) < 1.2
    assert 0.85 < ratio([mean_estimate(normal(50, 1, k)[:, 0]) for k in range(200)]) < 1.15


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 1.2, 3.0), (0.5, 0.6, 1.5)], ids=["perfect", "far"])
def test_distances_of_one_set_have_at_most_twice_their_true_spread(shift, low, high):
    """All repetitions share the 8 fresh draws, whose deviation is known to 27 %."""
    data = GaussianMixture(batch_size=10, val_size=20, size=1000, seed=0)
    quality = VectorQuality(["wasserstein", "energy"]).attach(data)
    measure = partial(quality.measure, n=200)
    found = [measure(data.draw(200, 10_000 + k) + shift) for k in range(200)]
    for name in ("wasserstein", "energy"):
        assert low < ratio([each[name] for each in found]) < high
