"""Training times: even coverage of the chain, the right law, and the variance that this saves."""

import numpy as np
import pytest
import torch

from litdiffusion.schedules import cosine, linear
from litdiffusion.times import UniformTimes


def indices(times, batch, offset=None):
    """The chain's indices of one draw, (batch,)."""
    offset = None if offset is None else torch.tensor(offset, dtype=torch.float64)
    t = times.draw(torch.zeros(batch, 1), offset).t
    return (t.view(-1) * times.schedule.steps).round().long()


@pytest.mark.parametrize("steps", [2, 10, 50, 200])
@pytest.mark.parametrize("multiple", [1, 2, 5])
def test_a_batch_of_a_multiple_of_t_holds_every_index_equally_often(steps, multiple):
    torch.manual_seed(0)
    times = UniformTimes(cosine(steps))
    for _ in range(20):
        counts = torch.bincount(indices(times, multiple * steps), minlength=steps + 1)
        assert counts.tolist() == [0] + [multiple] * steps


@pytest.mark.parametrize(("steps", "batch"), [(1000, 64), (200, 7), (50, 33)])
def test_any_batch_holds_at_most_one_time_per_equal_share(steps, batch):
    torch.manual_seed(1)
    times = UniformTimes(cosine(steps))
    for _ in range(20):
        drawn = indices(times, batch).sort().values.numpy()
        gaps = np.diff(drawn)
        assert gaps.min() >= steps // batch
        assert gaps.max() <= -(-steps // batch)


def test_a_single_draw_is_uniform_on_1_to_t():
    torch.manual_seed(2)
    times, draws = UniformTimes(cosine(10)), 4000
    counts = torch.bincount(torch.cat([indices(times, 1) for _ in range(draws)]), minlength=11)
    assert counts[0] == 0
    chi_square = ((counts[1:] - draws / 10) ** 2 / (draws / 10)).sum().item()
    assert 1.7 < chi_square < 23.6  # the 0.5 % and 99.5 % points at 9 degrees of freedom


def test_a_sample_picked_at_random_from_a_batch_has_a_uniform_index():
    torch.manual_seed(3)
    times, draws = UniformTimes(cosine(10)), 4000
    picked = torch.stack([indices(times, 4)[torch.randint(4, ())] for _ in range(draws)])
    counts = torch.bincount(picked, minlength=11)
    assert counts[0] == 0
    assert 1.7 < ((counts[1:] - draws / 10) ** 2 / (draws / 10)).sum().item() < 23.6


@pytest.mark.parametrize("offset", [0.0, 1e-300, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
def test_index_0_is_never_drawn_whatever_the_offset(offset, batch):
    drawn = indices(UniformTimes(linear(50)), batch, offset)
    assert drawn.min() >= 1
    assert drawn.max() <= 50


@pytest.mark.parametrize(("steps", "batch"), [(10, 4), (50, 64), (1000, 17)])
def test_a_given_offset_fixes_the_times_at_the_quantiles(steps, batch):
    times = UniformTimes(cosine(steps))
    expected = np.ceil((1 - (np.arange(batch) + 0.3) / batch) * steps)
    assert indices(times, batch, 0.3).tolist() == expected.tolist()
    assert torch.equal(indices(times, batch, 0.3), indices(times, batch, 0.3))


def test_a_global_seed_reproduces_a_draw():
    times = UniformTimes(linear(1000))
    torch.manual_seed(5)
    first, second = indices(times, 8), indices(times, 8)
    torch.manual_seed(5)
    assert torch.equal(indices(times, 8), first)
    assert not torch.equal(first, second)


def test_variance_of_the_mean_time_is_hundreds_of_times_below_that_of_independent_draws():
    torch.manual_seed(4)
    steps, batch = 1000, 250
    times = UniformTimes(cosine(steps))
    means = torch.stack([times.draw(torch.zeros(batch, 1)).t.mean() for _ in range(2000)])
    share = steps // batch  # one offset decides among this many neighbouring levels
    exact = (share**2 - 1) / 12 / steps**2
    independent = (steps**2 - 1) / 12 / steps**2 / batch
    assert means.var().item() == pytest.approx(exact, rel=0.15)
    assert independent / means.var().item() > 200


@pytest.mark.parametrize("shape", [(), (2,), (3, 4, 5)])
def test_times_broadcast_against_the_data_one_per_sample_in_float64(shape):
    x_0 = torch.zeros(6, *shape)
    t = UniformTimes(linear(1000)).draw(x_0, torch.tensor(0.5)).t
    assert t.dtype == torch.float64
    assert (x_0 + t).shape == x_0.shape
    assert t.flatten().tolist() == pytest.approx(np.ceil((1 - (np.arange(6) + 0.5) / 6) * 1000) / 1000)


def test_offset_0_covers_the_chain_evenly_too():
    assert torch.bincount(indices(UniformTimes(linear(100)), 100, 0.0), minlength=101).tolist() == [0] + [1] * 100
