"""Energy distance, kernel MMD and the mixture baseline against closed forms and independent sums."""

import math
from functools import partial

import pytest
import torch
from scipy.special import erf, gamma, hyp1f1
from torch import Tensor

from litdiffusion.measure.distances import (
    PairDistance,
    SlicedWasserstein,
    data_scale,
    energy_distance,
    energy_kernel,
    gaussian_kernels,
    gaussian_mixture_samples,
    kernel_mmd,
    mean_estimate,
    noise_floor,
)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_length(mean: float, std: float, d: int) -> float:
    """E|Z| for Z ~ N(m, std² I) in d dimensions with |m| = mean: a confluent hypergeometric function."""
    factor = std * math.sqrt(2) * gamma((d + 1) / 2) / gamma(d / 2)
    return float(factor * hyp1f1(-0.5, d / 2, -(mean**2) / (2 * std**2)))


def energy_squared(mean: float, std: float, d: int) -> float:
    """The squared energy distance of N(0, I) and N(m, std² I)."""
    crossed = mean_length(mean, math.sqrt(1 + std**2), d)
    return 2 * crossed - mean_length(0, math.sqrt(2), d) - mean_length(0, math.sqrt(2) * std, d)


def mean_kernel(mean: float, variance: float, d: int, bandwidth: float) -> float:
    """E exp(-|Z|² / 2h²) for Z ~ N(m, variance · I)."""
    total = bandwidth**2 + variance
    return (bandwidth**2 / total) ** (d / 2) * math.exp(-(mean**2) / (2 * total))


def direct(x: Tensor, y: Tensor, scale: float, octaves: int) -> float:
    """The MMD by its definition, every pair in one matrix."""

    def k(a: Tensor, b: Tensor) -> Tensor:
        squares = (a[:, None] - b).square().sum(dim=2)
        return torch.stack([(-squares / (2 * (scale / 2**i) ** 2)).exp() for i in range(octaves)]).mean()

    return float((k(x, x) + k(y, y) - 2 * k(x, y)).sqrt())


def direct_mmd(x: Tensor, y: Tensor) -> float:
    return direct(x, y, 1.5, 4)


def test_the_closed_form_in_one_dimension_is_the_folded_normal() -> None:
    mean, std = 0.7, 1.3
    folded = std * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * std**2)) + mean * erf(mean / (std * 2**0.5))
    assert mean_length(mean, std, 1) == pytest.approx(folded, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize(("mean", "std"), [(1.0, 1.0), (0.0, 2.0), (2.0, 0.5)])
def test_energy_distance_of_normals(d: int, mean: float, std: float) -> None:
    """The mean of 10 pairs. The V-statistic is too large by E|X - X'| / n + E|Y - Y'| / m; means of 1000 and 800
    points are 0.047 apart by chance, so a shift of 1 squared errs by 9 %, and the mean of 10 by 3 %.
    """
    shift = torch.full((d,), mean / math.sqrt(d))
    pairs = [(normal(1000, d, 2 * i), std * normal(800, d, 2 * i + 1) + shift) for i in range(10)]
    found = sum(energy_distance(x, y) ** 2 for x, y in pairs) / 10
    bias = mean_length(0, math.sqrt(2), d) / 1000 + mean_length(0, math.sqrt(2) * std, d) / 800
    assert found == pytest.approx(energy_squared(mean, std, d) + bias, rel=0.1)


def test_energy_distance_for_small_shifts_is_the_shift_over_pi_to_the_quarter() -> None:
    assert math.sqrt(energy_squared(0.01, 1.0, 1)) == pytest.approx(0.01 / math.pi**0.25, rel=1e-4)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_energy_distance_is_the_sum_over_all_pairs(d: int) -> None:
    """Sizes that are no multiple of a tile, far from the origin, where digits could be lost."""
    x, y = normal(700, d, 0) + 1e4, 1.2 * normal(311, d, 1) + 1e4 + 0.2
    means = [(a[:, None] - b).norm(dim=2).mean() for a, b in ((x, y), (x, x), (y, y))]
    assert energy_distance(x, y) == pytest.approx(float((2 * means[0] - means[1] - means[2]).sqrt()), rel=1e-7)
    beside = torch.zeros(1, dtype=torch.float64)
    wide = [torch.cat((z, beside.expand(len(z), 1)), dim=1) for z in (x, y)]
    assert energy_distance(*wide) == pytest.approx(energy_distance(x, y), rel=1e-7)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize(("mean", "std"), [(1.0, 1.0), (0.0, 2.0)])
def test_mmd_of_normals(d: int, mean: float, std: float) -> None:
    """The mean of 10 pairs: k = 1 on the 2n pairs of a point with itself, the closed form elsewhere."""
    n, scale, bandwidths = 1000, math.sqrt(d), [math.sqrt(d) / 2**i for i in range(4)]
    pairs = [(normal(n, d, 2 * i), std * normal(n, d, 2 * i + 1) + mean / math.sqrt(d)) for i in range(10)]
    found = sum(kernel_mmd(x, y, scale) ** 2 for x, y in pairs) / 10
    within = [mean_kernel(0, 2, d, h) + mean_kernel(0, 2 * std**2, d, h) for h in bandwidths]
    across = [mean_kernel(mean, 1 + std**2, d, h) for h in bandwidths]
    expected = sum(2 / n + (1 - 1 / n) * a - 2 * b for a, b in zip(within, across, strict=True)) / 4
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("n", "m"), [(600, 257), (5, 5), (1, 300)])
def test_mmd_is_the_sum_over_all_pairs(n: int, m: int) -> None:
    x, y = normal(n, 3, 0), normal(m, 3, 1) * 1.5
    assert kernel_mmd(x + 1e3, y + 1e3, 2.0) == pytest.approx(direct(x, y, 2.0, 4), rel=1e-8)
    assert kernel_mmd(x, y, 0.7, octaves=2) == pytest.approx(direct(x, y, 0.7, 2), rel=1e-8)


@pytest.mark.parametrize("d", [1, 3])
def test_distances_are_symmetric_zero_for_equal_samples_and_scale(d: int) -> None:
    x, y = normal(300, d, 0), normal(420, d, 1) + 0.3
    mmd = partial(kernel_mmd, scale=data_scale(x))
    for distance in (energy_distance, mmd):
        assert distance(x, x.flip(0)) == pytest.approx(0, abs=1e-6)
        assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9)
    assert energy_distance(9 * x, 9 * y) == pytest.approx(3 * energy_distance(x, y), rel=1e-9)
    assert kernel_mmd(9 * x, 9 * y, data_scale(9 * x)) == pytest.approx(mmd(x, y), rel=1e-9)


@pytest.mark.parametrize(
    "distance", [SlicedWasserstein(), energy_kernel(), gaussian_kernels(1.5), PairDistance(direct_mmd)]
)
def test_a_table_holds_the_distances_of_the_pairs(distance) -> None:
    """Whether or not the parts of single samples are given; sizes differ."""
    xs, ys = [normal(50, 2, 0), normal(70, 2, 1)], [normal(n, 2, n) * 1.1 for n in (50, 60, 300)]
    table = distance.table(xs, ys)
    assert table.tolist() == [[distance(x, y) for y in ys] for x in xs]
    assert torch.equal(distance.table(xs, ys, [distance.alone(y) for y in ys]), table)


def test_samples_far_apart_are_almost_sqrt_2_apart() -> None:
    """Points far from each other and from the other sample: only the n + m pairs with themselves are left."""
    x = 1e3 * torch.arange(50.0)[:, None]
    assert kernel_mmd(x[:30], x[30:], 1.0) == pytest.approx(math.sqrt(1 / 30 + 1 / 20), rel=1e-9)
    near, far = torch.zeros(4, 2), torch.full((6, 2), 1e3)
    assert kernel_mmd(near, far, 1.0) == pytest.approx(math.sqrt(2), rel=1e-9)


def test_data_scale_of_a_normal_is_root_d_and_ignores_the_mean() -> None:
    assert data_scale(2 * normal(20_000, 5, 0) + 7) == pytest.approx(2 * math.sqrt(5), rel=0.01)


@pytest.mark.parametrize("distance", [energy_distance, partial(kernel_mmd, scale=1.5)])
def test_a_perfect_sampler_is_on_the_noise_floor_and_a_wrong_one_above(distance) -> None:
    floor = noise_floor(lambda n, seed: normal(n, 2, seed), 500, 10, distance)
    fresh = distance(normal(500, 2, 100), normal(500, 2, 101))
    assert abs(fresh - floor.mean) < 5 * floor.std
    assert distance(normal(500, 2, 100), 1.3 * normal(500, 2, 101)) > floor.mean + 5 * floor.std


def three_modes(n: int, seed: int) -> Tensor:
    """Modes at (-40, 0), (0, 2), (40, 0): weights 1/2, 1/4, 1/4, deviations 1 and 0.2."""
    kind = torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed + 1)).clamp(max=2)
    centres = torch.tensor([[0.0, 2.0], [40.0, 0.0], [-40.0, 0.0]], dtype=torch.float64)
    return centres[kind] + normal(n, 2, seed) * torch.tensor([1.0, 0.2], dtype=torch.float64)


def test_the_mixture_baseline_finds_a_mixture() -> None:
    """Samples as near to fresh data as data are; the first ones already hold every mode."""
    floor = noise_floor(lambda n, seed: three_modes(n, 10 * seed), 1000, 10, energy_distance)
    drawn = gaussian_mixture_samples(three_modes(1000, 3), 1000, seed=0)
    assert energy_distance(drawn, three_modes(1000, 7)) < floor.mean + 5 * floor.std
    assert {round(float(v)) for v in (drawn[:20, 0] / 40)} == {-1, 0, 1}


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_one_normal_is_fitted_by_one_component_at_any_scale(scale: float) -> None:
    """Mean and covariance of the sample to 5 standard errors of 40 000 draws."""
    train = normal(300, 2, 0) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]], dtype=torch.float64) * scale + 3 * scale
    drawn = gaussian_mixture_samples(train, 40_000, seed=0)
    assert (drawn.mean(dim=0) / scale).tolist() == pytest.approx((train.mean(dim=0) / scale).tolist(), abs=0.03)
    expected = train.T.cov(correction=0) / scale**2
    assert (drawn.T.cov() / scale**2).flatten().tolist() == pytest.approx(expected.flatten().tolist(), abs=0.05)


def test_mixture_samples_repeat_and_keep_constant_coordinates() -> None:
    train = torch.cat((normal(50, 1, 0), torch.full((50, 1), 4.0)), dim=1).float()
    drawn = gaussian_mixture_samples(train, 30, seed=3)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, gaussian_mixture_samples(train, 30, seed=3))
    assert not torch.equal(drawn, gaussian_mixture_samples(train, 30, seed=4))
    assert (drawn[:, 1] == 4).all()


def test_the_mean_of_values_has_its_standard_error() -> None:
    found = mean_estimate(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert found == pytest.approx((3.0, math.sqrt(14 / 3 / 4), 4))


def test_bad_input_is_refused_with_the_remedy() -> None:
    x = normal(5, 2, 0)
    for distance in (energy_distance, partial(kernel_mmd, scale=1.0)):
        with pytest.raises(ValueError, match="non-empty"):
            distance(x, x[:0])
        with pytest.raises(ValueError, match="diverged"):
            distance(x, x / 0)
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must be positive"):
            kernel_mmd(x, x, scale)
    with pytest.raises(ValueError, match="n >= 2"):
        mean_estimate(x[:1, 0])
    with pytest.raises(ValueError, match="m >= 2"):
        gaussian_mixture_samples(x[:1], 3, 0)
