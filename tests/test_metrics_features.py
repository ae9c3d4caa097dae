"""Fréchet and kernel distance against closed forms and torchmetrics, precision and its kin by brute force."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from litdiffusion.measure.distances import (
    Moments,
    density_coverage,
    frechet_between,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
    moments,
    polynomial_mmd2,
    precision_recall,
)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Identity(nn.Module):
    """Features as they are, in the form in which torchmetrics takes a network."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x


def exact_moments(mean: Tensor, covariance: Tensor) -> Moments:
    return Moments(mean.double(), covariance.double(), 1)


def test_frechet_of_commuting_normals() -> None:
    """Diagonal covariances: the sum of squared differences of means and of deviations."""
    first = exact_moments(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 4.0, 0.0]).diag())
    second = exact_moments(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([9.0, 0.25, 1.0]).diag())
    expected = 1 + 0 + 4 + (1 - 3) ** 2 + (2 - 0.5) ** 2 + 1
    assert frechet_between(first, second) == pytest.approx(expected, rel=1e-12)
    assert frechet_between(second, first) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_normals_that_do_not_commute() -> None:
    """In two dimensions ``tr (C C')^1/2 = sqrt(tr(C C') + 2 sqrt(det(C C')))``."""
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.4], [-0.4, 3.0]], dtype=torch.float64)
    zero = torch.zeros(2)
    cross = (torch.trace(a @ b) + 2 * (a.det() * b.det()).sqrt()).sqrt()
    found = frechet_between(exact_moments(zero, a), exact_moments(zero, b))
    assert found == pytest.approx(float(a.trace() + b.trace() - 2 * cross), rel=1e-12)


def test_frechet_ignores_rotations_and_is_zero_for_equal_features() -> None:
    x, y = normal(300, 6, 0), normal(200, 6, 1) * torch.linspace(0.2, 2, 6) + 0.3
    rotation = torch.linalg.qr(normal(6, 6, 2)).Q
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-10)
    flat = torch.cat((x, x), dim=1)
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-5)


def test_moments_use_n_minus_1() -> None:
    x = normal(40, 3, 0).float() + 100
    found = moments(x)
    assert found.n == 40
    assert torch.allclose(found.mean, x.double().mean(dim=0), rtol=1e-12)
    assert torch.allclose(found.covariance, x.double().T.cov(), rtol=1e-9)


def test_frechet_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = normal(500, 6, 0) @ normal(6, 6, 3), normal(400, 6, 1) @ normal(6, 6, 4) + 0.5
    metric = FrechetInceptionDistance(feature=Identity(), normalize=True).set_dtype(torch.float64)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert frechet_distance(y, x) == pytest.approx(float(metric.compute()), rel=1e-10)


def test_frechet_agrees_with_torch_fidelity() -> None:
    """The code that published FIDs in PyTorch come from, on the same features; it also divides by n - 1."""
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = normal(500, 6, 0) @ normal(6, 6, 3), normal(400, 6, 1) @ normal(6, 6, 4) + 0.5
    found = fidelity.fid_statistics_to_metric(*map(fidelity.fid_features_to_statistics, (x, y)), verbose=False)
    assert frechet_distance(x, y) == pytest.approx(found["frechet_inception_distance"], rel=1e-10)


def test_the_frechet_distance_of_a_shifted_wide_normal() -> None:
    real = exact_moments(torch.zeros(4), torch.eye(4))
    values = [frechet_estimate(1.3 * normal(400, 4, seed) + 0.5, real).value for seed in range(100)]
    assert sum(values) / 100 == pytest.approx(4 * 0.25 + 4 * 0.09, rel=0.05)


def test_the_frechet_bias_falls_as_one_over_n() -> None:
    """What the spread leaves out: samples of the right law score c / n on average."""
    real = exact_moments(torch.zeros(5), torch.eye(5))
    means = [
        sum(frechet_between(moments(normal(n, 5, seed)), real) for seed in range(50)) / 50 for n in (100, 400, 1600)
    ]
    assert means[0] / means[1] == pytest.approx(4, rel=0.2)
    assert means[1] / means[2] == pytest.approx(4, rel=0.2)


def test_kernel_distance_agrees_with_torchmetrics() -> None:
    """One subset of everything: the order of the items then has no part in it."""
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = normal(150, 6, 0), 1.4 * normal(150, 6, 1) + 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        metric = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=150, normalize=True)
    metric.set_dtype(torch.float64)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert polynomial_mmd2(x, y) == pytest.approx(float(metric.compute()[0]), rel=1e-6)


def test_the_kernel_distance_by_its_definition() -> None:
    x, y = normal(7, 3, 0), normal(9, 3, 1) + 0.5

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    first = sum(k(x[i], x[j]) for i in range(7) for j in range(7) if i != j) / 42
    second = sum(k(y[i], y[j]) for i in range(9) for j in range(9) if i != j) / 72
    across = sum(k(a, b) for a in x for b in y) / 63
    assert polynomial_mmd2(x, y) == pytest.approx(first + second - 2 * across, rel=1e-10)


def test_the_kernel_distance_in_one_dimension_is_a_sum_over_moments() -> None:
    """``(xy + 1)³`` compares moments: ``3 (Δm_1)² + 3 (Δm_2)² + (Δm_3)²``; N(0.5, 1) has 0.5, 1.25, 1.625."""
    expected = 3 * 0.5**2 + 3 * 0.25**2 + 1.625**2
    found = kernel_distance(normal(20_000, 1, 0), normal(20_000, 1, 1) + 0.5, subsets=20)
    assert abs(found.value - expected) < 4 * found.spread
    assert found.spread < 0.1 * expected


def test_the_kernel_distance_is_unbiased_and_its_spread_true() -> None:
    """300 pairs of one law: mean 0 to 4 standard errors; the mean reported variance is the variance seen."""
    found = [kernel_distance(normal(100, 3, 2 * i), normal(100, 3, 2 * i + 1)) for i in range(300)]
    values = torch.tensor([estimate.value for estimate in found])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(300)
    reported = torch.tensor([estimate.spread for estimate in found]).square().mean().sqrt()
    assert float(reported) == pytest.approx(float(values.std()), rel=0.25)
    assert found[0].n == 100


def test_the_subsets_depend_on_the_seed_alone() -> None:
    x, y, before = normal(60, 3, 0), normal(45, 3, 1), torch.random.get_rng_state()
    assert kernel_distance(x, y) == kernel_distance(x, y) != kernel_distance(x, y, seed=1)
    assert kernel_distance(x, y, subsets=4).n == 44
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("n", "m"), [(40, 40), (25, 60)])
def test_balls_by_brute_force(n: int, m: int) -> None:
    samples, real = 1.2 * normal(n, 3, 0) + 0.3, normal(m, 3, 1)

    def radii(x: Tensor, k: int) -> list[float]:
        return [sorted(math.dist(p, q) for q in x.tolist())[k] for p in x.tolist()]

    def inside(points: Tensor, x: Tensor, k: int) -> list[list[bool]]:
        balls = list(zip(x.tolist(), radii(x, k), strict=True))
        return [[math.dist(p, centre) <= radius for centre, radius in balls] for p in points.tolist()]

    found, dense = precision_recall(samples, real, k=3), density_coverage(samples, real, k=5)
    assert found.precision.value == pytest.approx(sum(map(any, inside(samples, real, 3))) / n)
    assert found.recall.value == pytest.approx(sum(map(any, inside(real, samples, 3))) / m)
    held = torch.tensor(inside(samples, real, 5))
    assert dense.density.value == pytest.approx(float(held.sum()) / n / 5)
    assert dense.coverage.value == pytest.approx(float(held.any(dim=0).sum()) / m)
    assert (found.precision.n, found.recall.n, dense.density.n, dense.coverage.n) == (n, m, n, m)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, real = normal(70, 4, 0), normal(90, 4, 1)
    whole = precision_recall(samples, real), density_coverage(samples, real)
    monkeypatch.setattr("litdiffusion.measure.distances.manifold.MEMORY", 0.005)
    assert (precision_recall(samples, real), density_coverage(samples, real)) == whole


@pytest.mark.parametrize("d", [2, 64])
def test_copies_of_all_real_points_are_in_k_and_one_balls_each(d: int) -> None:
    """Every real ball holds its centre and k neighbours, the k-th on the rim."""
    real = normal(600, d, 0) + 10
    found = density_coverage(real.flip(0), real, k=5)
    assert (found.density.value, found.coverage.value) == (pytest.approx(6 / 5, rel=1e-12), 1)
    assert precision_recall(real.flip(0), real)[0].value == 1


def test_a_collapsed_sampler_is_precise_and_recalls_little() -> None:
    real = normal(1000, 4, 0)
    collapsed = real[:3].repeat(200, 1) + 0.01 * normal(600, 4, 1)
    found, dense = precision_recall(collapsed, real), density_coverage(collapsed, real)
    assert found.precision.value > 0.99
    assert found.recall.value < 0.05
    assert dense.coverage.value < 0.1


def test_a_scattered_sampler_is_imprecise() -> None:
    """Recall is misled by its large balls; density and coverage are not."""
    real, scattered = normal(1000, 4, 0), 6 * normal(1000, 4, 1)
    found, dense = precision_recall(scattered, real), density_coverage(scattered, real)
    assert found.precision.value < 0.1
    assert found.recall.value > 0.5
    assert dense.density.value < 0.05
    assert dense.coverage.value < 0.1


def test_the_data_law_itself_has_the_stated_expectations() -> None:
    """Density 1 and coverage 1 - C(m - 1, k) / C(n + m - 1, k), near 1 - 2^-k, over 20 pairs of sets."""
    found = [density_coverage(normal(300, 3, 2 * i), normal(300, 3, 2 * i + 1)) for i in range(20)]
    density = sum(each.density.value for each in found) / 20
    coverage = sum(each.coverage.value for each in found) / 20
    assert density == pytest.approx(1, abs=0.03)
    assert coverage == pytest.approx(1 - math.comb(299, 5) / math.comb(599, 5), abs=0.01)
    both = [precision_recall(normal(300, 3, 2 * i), normal(300, 3, 2 * i + 1)) for i in range(20)]
    gap = sum(each.precision.value - each.recall.value for each in both) / 20
    assert gap == pytest.approx(0, abs=0.02)


def test_the_spread_of_precision_is_that_of_fresh_samples() -> None:
    """Precision at fixed real data is a mean over samples: its standard error against 100 fresh sets."""
    real = normal(300, 3, 0)
    values = [precision_recall(1.5 * normal(200, 3, seed), real).precision.value for seed in range(1, 101)]
    found = precision_recall(1.5 * normal(200, 3, 1), real).precision
    assert found.spread == pytest.approx(float(torch.tensor(values).std()), rel=0.35)


def test_bad_features_are_refused_with_the_remedy() -> None:
    x = normal(6, 3, 0)
    with pytest.raises(ValueError, match="n >= 2"):
        moments(x[:1])
    with pytest.raises(ValueError, match="non-finite"):
        moments(x / 0)
    with pytest.raises(ValueError, match="one network"):
        frechet_distance(x, x[:, :2])
    with pytest.raises(ValueError, match="from 2 to 3 subsets"):
        kernel_distance(x, x)
    with pytest.raises(ValueError, match="at least 2 items"):
        polynomial_mmd2(x[:1], x)
    with pytest.raises(ValueError, match="k must be from 1 to 5"):
        precision_recall(x, x, k=6)
    with pytest.raises(ValueError, match="k must be from 1 to 5"):
        density_coverage(x, x, k=0)
