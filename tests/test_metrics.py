"""Distances between samples against known answers, and the baseline's spread."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from litdiffusion.measure.distances import (
    distance_for,
    kernel_density_samples,
    noise_floor,
    sliced_wasserstein,
    wasserstein_1d,
)


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shift", [0.5, 2.0, -3.0])
def test_w1_of_shifted_normals_is_the_shift(shift: float) -> None:
    """Both means err by n^-1/2: 5 standard errors of their difference at n = 40 000 are 0.035."""
    assert wasserstein_1d(normal(40_000, 1, 0), normal(40_000, 1, 1) + shift) == pytest.approx(abs(shift), abs=0.035)


@pytest.mark.parametrize(("n", "m"), [(500, 500), (500, 301), (7, 1000), (1, 9)])
def test_w1_agrees_with_scipy_for_any_sizes(n: int, m: int) -> None:
    x, y = normal(n, 1, 0), 1.7 * normal(m, 1, 1) + 0.3
    assert wasserstein_1d(x, y) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)
    assert wasserstein_1d(x[:, 0], y[:, 0]) == wasserstein_1d(x, y)


@pytest.mark.parametrize("d", [2, 5, 20])
def test_sliced_w2_of_shifted_normals(d: int) -> None:
    """The mean of (w·mu)² over 2000 directions errs by sqrt(2/2000) = 3 %; so the root by 1.6 % (3 sigma: 5
    %).
    """
    mean = torch.linspace(0.5, 1.5, d, dtype=torch.float64)
    found = sliced_wasserstein(normal(2000, d, 0), normal(2000, d, 1) + mean, projections=1000)
    assert found == pytest.approx(float(mean.norm()) / math.sqrt(d), rel=0.07)


@pytest.mark.parametrize("scale", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("d", [2, 6])
def test_sliced_w2_of_scaled_normals(scale: float, d: int) -> None:
    found = sliced_wasserstein(normal(6000, d, 0), scale * normal(6000, d, 1), 100)
    assert found == pytest.approx(abs(scale - 1), abs=0.05)


def test_sliced_w2_in_a_plane_is_the_projected_distance() -> None:
    """Two single points: every slice is |w·(x - y)|, so the distance is |x - y| / sqrt(2) up to the
    directions.
    """
    x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    assert sliced_wasserstein(x, y, projections=20_000) == pytest.approx(5 / math.sqrt(2), rel=0.02)


@pytest.mark.parametrize("d", [1, 3])
def test_zero_for_the_same_points_and_symmetric(d: int) -> None:
    distance = distance_for(d)
    x, y = normal(200, d, 0), normal(350, d, 1)
    assert distance(x, x.flip(0)) == pytest.approx(0, abs=1e-15)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-12)
    assert distance(x, y) > 0.01


@pytest.mark.parametrize("d", [1, 3])
def test_unequal_sizes_equal_a_repeated_sample(d: int) -> None:
    """Repeating every point twice leaves the empirical law, hence the distance, as it is."""
    distance = distance_for(d)
    x, y = normal(120, d, 0), normal(240, d, 1)
    assert distance(x, y) == pytest.approx(distance(x.repeat(2, 1), y), rel=1e-12)


def test_directions_depend_on_the_seed_alone() -> None:
    x, y = normal(100, 4, 0), normal(100, 4, 1)
    before = torch.random.get_rng_state()
    assert sliced_wasserstein(x, y, 20) == sliced_wasserstein(x, y, 20) != sliced_wasserstein(x, y, 20, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("d", [1, 2])
def test_the_floor_falls_as_one_over_root_n(d: int) -> None:
    sizes = (100, 400, 1600)
    floors = [noise_floor(lambda n, seed: normal(n, d, seed), n, 20, distance_for(d)).mean for n in sizes]
    slope = math.log(floors[-1] / floors[0]) / math.log(sizes[-1] / sizes[0])
    assert slope == pytest.approx(-0.5, abs=0.12)


def test_the_floor_draws_independent_pairs_and_reports_their_spread() -> None:
    seeds: list[int] = []

    def draw(n: int, seed: int) -> torch.Tensor:
        seeds.append(seed)
        return normal(n, 2, seed)

    floor = noise_floor(draw, 50, repeats=3)
    each = [sliced_wasserstein(normal(50, 2, i), normal(50, 2, i + 1)) for i in (0, 2, 4)]
    assert sorted(seeds) == list(range(6))
    assert floor.mean == pytest.approx(sum(each) / 3)
    assert min(each) < floor.mean < max(each)
    assert floor.std == pytest.approx(float(torch.tensor(each).double().std()))
    assert noise_floor(draw, 50, repeats=1).std == 0


@pytest.mark.parametrize("scale", [1.0, 0.05, 40.0])
def test_kernel_density_samples_are_wider_by_the_bandwidth(scale: float) -> None:
    """Each variance is the sample's times 1 + h², h = m^(-1/(d+4)), at any scale of the data; 5 sigma is 3.5
    %.
    """
    train = normal(400, 2, 0) * scale * torch.tensor([1.0, 3.0]) + 7 * scale
    drawn = kernel_density_samples(train, 40_000, seed=0)
    factor = 1 + 400 ** (-2 / 6)
    ratio = drawn.var(dim=0) / train.var(dim=0, correction=0)
    assert ratio.tolist() == pytest.approx([factor] * 2, rel=0.035)
    assert drawn.mean(dim=0).tolist() == pytest.approx(train.mean(dim=0).tolist(), abs=0.1 * scale)


def test_kernel_density_samples_repeat_and_keep_constant_coordinates() -> None:
    train = torch.cat((normal(50, 1, 0), torch.full((50, 1), 4.0)), dim=1).float()
    drawn = kernel_density_samples(train, 30, seed=3)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, kernel_density_samples(train, 30, seed=3))
    assert not torch.equal(drawn, kernel_density_samples(train, 30, seed=4))
    assert (drawn[:, 1] == 4).all()


def test_bad_samples_are_refused_with_the_remedy() -> None:
    x, y = normal(5, 1, 0), normal(5, 2, 0)
    with pytest.raises(ValueError, match="use wasserstein_1d"):
        sliced_wasserstein(x, x)
    with pytest.raises(ValueError, match="use sliced_wasserstein"):
        wasserstein_1d(y, y)
    with pytest.raises(ValueError, match="non-empty"):
        sliced_wasserstein(y, y[:0])
    with pytest.raises(ValueError, match="diverged"):
        wasserstein_1d(x, x / 0)
    with pytest.raises(ValueError, match="repeats"):
        noise_floor(lambda n, seed: y, 5, repeats=0)
    with pytest.raises(ValueError, match="m >= 2"):
        kernel_density_samples(x[:1], 3, 0)
