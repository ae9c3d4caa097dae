"""Copies found and fresh draws left in peace; class histograms by hand."""

import math

import pytest
import torch
from torch import Tensor

from litdiffusion.measure.distances import class_balance, class_shares, copying_check, nearest, total_variation


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(37, 101), (1100, 2600)])
def test_nearest_by_brute_force(n: int, m: int) -> None:
    """One block and several on both sides, images, and a mean that would cost digits."""
    x, train = (normal(count, 12, seed).reshape(count, 3, 2, 2) + 50 for count, seed in ((n, 0), (m, 1)))
    table = (x[:, None] - train).flatten(2).norm(dim=2)
    found = nearest(x, train)
    assert torch.equal(found.indices, table.argmin(dim=1))
    assert torch.allclose(found.distances, table.min(dim=1).values, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_copies_are_at_zero(dtype: torch.dtype) -> None:
    train = normal(3000, 8, 0).to(dtype) + 100
    index = torch.tensor([2999, 0, 1500])
    found = nearest(train[index], train)
    assert torch.equal(found.indices, index)
    assert torch.equal(found.distances, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_copies_are_found(noise: float) -> None:
    train, held_out = normal(1000, 10, 0), normal(1000, 10, 1)
    found = copying_check(train[:300] + noise * normal(300, 10, 2), train, held_out)
    assert found.share.value == 1
    assert found.ratio < 0.15
    assert torch.equal(found.nearest.indices, torch.arange(300))


def test_one_copy_in_five_is_counted_and_shown() -> None:
    train, held_out, fresh = normal(1000, 10, 0), normal(1000, 10, 1), normal(800, 10, 2)
    found = copying_check(torch.cat((train[:200], fresh)), train, held_out)
    assert found.share.value == pytest.approx(0.2 + 0.8 * 0.01, abs=0.02)
    assert set(found.nearest.distances.argsort()[:200].tolist()) == set(range(200))


def test_fresh_draws_are_as_near_as_held_out_items() -> None:
    """Share and ratio over 40 independent worlds: 0.01 on average, with the spread that each reports."""
    found = [
        copying_check(normal(400, 4, 3 * i), normal(400, 4, 3 * i + 1), normal(400, 4, 3 * i + 2)) for i in range(40)
    ]
    shares = torch.tensor([each.share.value for each in found])
    assert found[0].expected == 4 / 401
    assert abs(float(shares.mean()) - 4 / 401) < 4 * float(shares.std()) / math.sqrt(40)
    spread = sum(each.share.spread for each in found) / 40
    assert spread == pytest.approx(float(shares.std()), rel=0.4)
    assert sum(each.ratio for each in found) / 40 == pytest.approx(1, abs=0.02)


def test_strays_have_a_large_ratio_and_no_share() -> None:
    found = copying_check(normal(200, 4, 0) + 30, normal(500, 4, 1), normal(500, 4, 2))
    assert found.share.value == 0
    assert found.ratio > 10


def test_the_threshold_is_a_held_out_distance() -> None:
    """Training item 0; held-out items at 1 .. 100: the nearest 1 % is the one at 1, the median (lower) 50."""
    held_out = torch.arange(1.0, 101.0)[:, None]
    found = copying_check(torch.tensor([[0.5], [1.0], [2.0], [-3.0]]), torch.zeros(1, 1), held_out)
    assert (found.threshold, found.share.value, found.expected) == (1, 0.5, 1 / 101)
    assert found.ratio == 1 / 50
    wider = copying_check(torch.tensor([[4.0], [6.0]]), torch.zeros(1, 1), held_out, quantile=0.05)
    assert (wider.threshold, wider.share.value) == (5, 0.5)
    fewest = copying_check(torch.tensor([[0.5]]), torch.zeros(1, 1), held_out[:49], quantile=1 / 49)
    assert (fewest.threshold, fewest.expected) == (1, 1 / 50)


def logits_for(class_labels: list[int], num_classes: int, confidence: float) -> Tensor:
    """Log probabilities that give each class label ``confidence`` and share the rest evenly."""
    rest = (1 - confidence) / (num_classes - 1)
    return torch.tensor(
        [
            [math.log(confidence if k == class_label else rest) for k in range(num_classes)]
            for class_label in class_labels
        ]
    )


def test_the_histogram_by_hand() -> None:
    logits = torch.cat((logits_for([0, 0, 0, 1], 4, 0.7), logits_for([1, 2], 4, 0.4)))
    found = class_balance(logits, torch.tensor([0.25, 0.25, 0.25, 0.25]))
    assert found.shares.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0])
    assert found.total_variation.value == pytest.approx(1 / 4 + 1 / 12)
    assert found.confidence.value == pytest.approx((4 * 0.7 + 2 * 0.4) / 6)
    assert found.confidence.spread == pytest.approx(0.3 * math.sqrt(2 / 6 * 4 / 6 / 5))


def test_total_variation_from_zero_to_one() -> None:
    p = torch.tensor([0.5, 0.5, 0.0])
    assert total_variation(p, p) == 0
    assert total_variation(p, torch.tensor([0.0, 0.0, 1.0])) == 1
    assert class_shares(torch.tensor([2, 0, 2, 2]), 4).tolist() == [0.25, 0, 0.75, 0]


def test_draws_of_the_data_are_on_the_floor_and_the_spread_is_true() -> None:
    """300 histograms of 2000 draws from the law itself, and from a skewed one."""
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])

    def draw(law: Tensor, seed: int) -> Tensor:
        return torch.multinomial(law, 2000, replacement=True, generator=torch.Generator().manual_seed(seed))

    perfect = torch.tensor([total_variation(class_shares(draw(shares, i), 4), shares) for i in range(300)])
    one = class_balance(torch.eye(4)[draw(shares.flip(0), 500)], shares)
    assert float(perfect.mean()) == pytest.approx(one.floor, rel=0.1)
    skewed = torch.tensor([total_variation(class_shares(draw(shares.flip(0), i), 4), shares) for i in range(300)])
    assert one.total_variation.value == pytest.approx(0.4, abs=0.05)
    assert one.total_variation.spread == pytest.approx(float(skewed.std()), rel=0.5)


def test_bad_input_is_refused_with_the_remedy() -> None:
    x, logits = normal(200, 3, 0), torch.zeros(5, 3)
    with pytest.raises(ValueError, match="hold out more"):
        copying_check(x, x, x[:99])
    with pytest.raises(ValueError, match="hold out other data"):
        copying_check(x, x, x)
    with pytest.raises(ValueError, match="diverged"):
        nearest(x / 0, x)
    with pytest.raises(ValueError, match="non-empty"):
        nearest(x, x[:, :2])
    with pytest.raises(ValueError, match="logits must be"):
        class_balance(logits, torch.ones(4) / 4)
    with pytest.raises(ValueError, match="sum to 1"):
        class_balance(logits, torch.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        class_balance(logits / 0, torch.ones(3) / 3)
    with pytest.raises(ValueError, match="from 0 to 2"):
        class_shares(torch.tensor([0, 3]), 3)
