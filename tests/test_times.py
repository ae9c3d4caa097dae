"""Training times: even coverage of the chain, the right law, and the variance that this saves."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, lognorm, norm

from litdiffusion.diffusion.schedules import VE, VP, CosineChain, LinearChain, LinearFlow, LinearSigma
from litdiffusion.diffusion.times import LogitNormalTimes, LogNormalSigma, LossAwareTimes, UniformTimes
from litdiffusion.errors import UserError


def indices(times, batch, offset=None):
    """The chain's indices of one draw, (batch,)."""
    offset = None if offset is None else torch.tensor(offset, dtype=torch.float64)
    t = times.draw(torch.zeros(batch, 1), offset).t
    return (t.view(-1) * times.schedule.steps).round().long()


@pytest.mark.parametrize("steps", [2, 10, 50, 200])
@pytest.mark.parametrize("multiple", [1, 2, 5])
def test_a_batch_of_a_multiple_of_t_holds_every_index_equally_often(steps, multiple):
    torch.manual_seed(0)
    times = UniformTimes(CosineChain(steps))
    for _ in range(20):
        counts = torch.bincount(indices(times, multiple * steps), minlength=steps + 1)
        assert counts.tolist() == [0] + [multiple] * steps


@pytest.mark.parametrize(("steps", "batch"), [(1000, 64), (200, 7), (50, 33)])
def test_any_batch_holds_at_most_one_time_per_equal_share(steps, batch):
    torch.manual_seed(1)
    times = UniformTimes(CosineChain(steps))
    for _ in range(20):
        drawn = indices(times, batch).sort().values.numpy()
        gaps = np.diff(drawn)
        assert gaps.min() >= steps // batch
        assert gaps.max() <= -(-steps // batch)


def test_a_single_draw_is_uniform_on_1_to_t():
    torch.manual_seed(2)
    times, draws = UniformTimes(CosineChain(10)), 4000
    counts = torch.bincount(torch.cat([indices(times, 1) for _ in range(draws)]), minlength=11)
    assert counts[0] == 0
    chi_square = ((counts[1:] - draws / 10) ** 2 / (draws / 10)).sum().item()
    assert 1.7 < chi_square < 23.6  # the 0.5 % and 99.5 % points at 9 degrees of freedom


def test_a_sample_picked_at_random_from_a_batch_has_a_uniform_index():
    torch.manual_seed(3)
    times, draws = UniformTimes(CosineChain(10)), 4000
    picked = torch.stack([indices(times, 4)[torch.randint(4, ())] for _ in range(draws)])
    counts = torch.bincount(picked, minlength=11)
    assert counts[0] == 0
    assert 1.7 < ((counts[1:] - draws / 10) ** 2 / (draws / 10)).sum().item() < 23.6


@pytest.mark.parametrize("offset", [0.0, 1e-300, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
def test_index_0_is_never_drawn_whatever_the_offset(offset, batch):
    drawn = indices(UniformTimes(LinearChain(50)), batch, offset)
    assert drawn.min() >= 1
    assert drawn.max() <= 50


@pytest.mark.parametrize(("steps", "batch"), [(10, 4), (50, 64), (1000, 17)])
def test_a_given_offset_fixes_the_times_at_the_quantiles(steps, batch):
    times = UniformTimes(CosineChain(steps))
    expected = np.ceil((1 - (np.arange(batch) + 0.3) / batch) * steps)
    assert indices(times, batch, 0.3).tolist() == expected.tolist()
    assert torch.equal(indices(times, batch, 0.3), indices(times, batch, 0.3))


def test_a_global_seed_reproduces_a_draw():
    times = UniformTimes(LinearChain(1000))
    torch.manual_seed(5)
    first, second = indices(times, 8), indices(times, 8)
    torch.manual_seed(5)
    assert torch.equal(indices(times, 8), first)
    assert not torch.equal(first, second)


def test_variance_of_the_mean_time_is_hundreds_of_times_below_that_of_independent_draws():
    torch.manual_seed(4)
    steps, batch = 1000, 250
    times = UniformTimes(CosineChain(steps))
    means = torch.stack([times.draw(torch.zeros(batch, 1)).t.mean() for _ in range(2000)])
    share = steps // batch  # one offset decides among this many neighbouring levels
    exact = (share**2 - 1) / 12 / steps**2
    independent = (steps**2 - 1) / 12 / steps**2 / batch
    assert means.var().item() == pytest.approx(exact, rel=0.15)
    assert independent / means.var().item() > 200


@pytest.mark.parametrize("shape", [(), (2,), (3, 4, 5)])
def test_times_broadcast_against_the_data_one_per_sample_in_float64(shape):
    x_0 = torch.zeros(6, *shape)
    t = UniformTimes(LinearChain(1000)).draw(x_0, torch.tensor(0.5)).t
    assert t.dtype == torch.float64
    assert (x_0 + t).shape == x_0.shape
    assert t.flatten().tolist() == pytest.approx(np.ceil((1 - (np.arange(6) + 0.5) / 6) * 1000) / 1000)


def test_offset_0_covers_the_chain_evenly_too():
    assert torch.bincount(indices(UniformTimes(LinearChain(100)), 100, 0.0), minlength=101).tolist() == [0] + [1] * 100


def levels(times, batch, offset=None):
    """The levels of one draw, fields of shape (batch,)."""
    drawn = times.draw(torch.zeros(batch, 1, dtype=torch.float64), offset)
    return type(drawn)(*(field.view(-1) for field in drawn))


def shares(count):
    """Midpoints of ``count`` equal parts of (0, 1]."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


# Laws.


def logit_normal(mean, std):
    return lambda t: norm.cdf((np.log(t) - np.log1p(-t) - mean) / std)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.8, 0.5), (1.0, 2.0)])
def test_logit_normal_times_have_their_quantiles_and_a_batch_their_law(mean, std):
    times = LogitNormalTimes(LinearFlow(1e-9), mean, std)
    u = shares(99)
    expected = 1 / (1 + np.exp(-norm.ppf(u, mean, std)))
    np.testing.assert_allclose(times.quantile(u), expected, rtol=1e-9)
    # One time per stratum: the empirical law of a batch is nowhere further off than one sample.
    assert kstest(levels(times, 500).t, logit_normal(mean, std)).statistic <= 1 / 500 + 1e-9


@pytest.mark.parametrize(
    "schedule", [LinearSigma(1e-4, 1e4), VE(1e-4, 1e4), VP(0.1, 40.0, 1e-9)], ids=["edm", "ve", "vp"]
)
@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.5, 0.4)])
def test_log_normal_sigma_has_its_quantiles_and_a_batch_its_law_in_every_process(mean, std, schedule):
    times = LogNormalSigma(schedule, mean, std)
    u = shares(99)
    found = schedule.at(times.quantile(u)).ratio
    np.testing.assert_allclose(found, lognorm.ppf(u, std, scale=np.exp(mean)), rtol=1e-7)
    ratios = levels(times, 500).ratio
    assert kstest(ratios, lognorm(std, scale=np.exp(mean)).cdf).statistic <= 1 / 500 + 1e-9


def test_log_normal_sigma_is_cut_off_at_the_ends_of_the_process():
    times = LogNormalSigma(LinearSigma(0.3, 1.0), 0.0, 2.0)
    sigma = levels(times, 1000, 0.5).sigma
    below, above = norm.cdf(np.log(0.3) / 2), norm.sf(0.0)
    assert (sigma == sigma.min()).sum().item() == pytest.approx(1000 * below, abs=1)
    assert (sigma == sigma.max()).sum().item() == pytest.approx(1000 * above, abs=1)
    assert (sigma.min().item(), sigma.max().item()) == pytest.approx((0.3, 1.0), rel=1e-12)


def test_on_a_chain_log_normal_sigma_takes_the_next_level_above():
    chain, u = LinearChain(50), shares(200)
    drawn = chain.snap(LogNormalSigma(chain, 0.0, 1.0).quantile(u))
    wanted = np.exp(norm.ppf(u))
    inside = (wanted > chain.at(1 / 50).ratio.item()) & (wanted < chain.at(1.0).ratio.item())
    assert (drawn.ratio.numpy()[inside] >= wanted[inside] * (1 - 1e-9)).all()
    assert (chain.previous(drawn).ratio.numpy()[inside] < wanted[inside]).all()


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [LogitNormalTimes, LogNormalSigma])
def test_a_deviation_that_is_not_positive_is_refused(make, std):
    with pytest.raises(UserError, match=f"times.std must be positive, got {std}; 1 to 1.2 are usual"):
        make(VP(), 0.0, std)


# Adaptive times.


def squared(t):
    """Losses with a wide range: 1e-3 to 3."""
    return 1e-3 + 3 * t**2


def taught(schedule, law=squared, **settings):
    """A sampler that has seen the same loss at every time for long."""
    times = LossAwareTimes(schedule, **{"bins": 20, "warmup": 2, "floor": 0.05, **settings})
    t = schedule.snap(shares(4000)).t
    for _ in range(3):
        times.observe(t, law(t))
    return times


EVERY = {
    "uniform": UniformTimes(VP(t_min=1e-9)),
    "chain": UniformTimes(CosineChain(50)),
    "logit_normal": LogitNormalTimes(LinearFlow()),
    "log_normal": LogNormalSigma(LinearSigma()),
    "loss_aware": taught(VP(t_min=1e-9)),
    "loss_aware_chain": taught(LinearChain(1000)),
}


@pytest.mark.parametrize("times", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_offsets_rank_plus_u_over_world_draw_one_large_batch_together(world, times):
    batch, u = 16, 0.37
    together = torch.cat([levels(times, batch, (rank + u) / world).t for rank in range(world)])
    torch.testing.assert_close(together.sort().values, levels(times, world * batch, u).t.sort().values)


@pytest.mark.parametrize("times", EVERY.values(), ids=EVERY)
def test_quantiles_rise_and_stay_within_the_trained_times(times):
    t = times.schedule.snap(times.quantile(torch.linspace(1e-9, 1, 2001, dtype=torch.float64))).t
    assert (t.diff() >= 0).all()
    assert t.min() >= times.schedule.t_min
    assert t.max() <= 1


def test_only_the_adaptive_sampler_weighs_its_draws():
    t = shares(10)
    assert {name for name, times in EVERY.items() if times.importance(t) is not None} == {
        "loss_aware",
        "loss_aware_chain",
    }
    assert [times.adaptive for times in EVERY.values()] == [False] * 4 + [True] * 2


def test_probabilities_are_proportional_to_the_root_mean_square_loss_above_their_floor():
    times = LossAwareTimes(VP(), bins=4, warmup=1, floor=0.08)
    losses = torch.tensor([1.0, 3.0, 0.5, 0.5, 2.0, 4.0]).double()
    times.observe(torch.tensor([0.1, 0.2, 0.3, 0.45, 0.6, 0.9]).double(), losses)
    root = np.sqrt([(1 + 9) / 2, 0.25, 4, 16])
    expected = 0.92 * root / root.sum() + 0.08 / 4
    np.testing.assert_allclose(times.probabilities(), expected, rtol=1e-14)
    assert times.probabilities().sum().item() == pytest.approx(1, rel=1e-14)


def test_means_of_squared_losses_decay_in_full_precision_and_only_where_a_bin_was_seen():
    times = LossAwareTimes(VP(), bins=2, decay=0.9, warmup=1)
    for loss in (2.0, 1.0, 3.0):
        times.observe(torch.tensor([0.3]).double(), torch.tensor([loss]))
    times.observe(torch.tensor([0.8]).double(), torch.tensor([5.0]))
    expected = 0.9 * (0.9 * 4 + 0.1 * 1) + 0.1 * 9
    np.testing.assert_allclose(times.second_moment, [expected, 25.0], rtol=1e-15)
    assert times.seen.tolist() == [3, 1]


def test_the_law_stays_uniform_until_every_bin_was_seen_often_enough():
    times, u = LossAwareTimes(VP(t_min=1e-9), bins=5, warmup=3), shares(50)
    for _ in range(2):
        times.observe(shares(5), squared(shares(5)))
    times.observe(shares(5)[1:], squared(shares(5)[1:]))
    torch.testing.assert_close(times.quantile(u), u, rtol=1e-13, atol=0)
    torch.testing.assert_close(times.importance(u), torch.ones_like(u), rtol=1e-13, atol=0)
    times.observe(shares(5)[:1], squared(shares(5)[:1]))
    assert (times.quantile(u) - u).abs().max() > 0.1


def test_losses_of_zero_leave_the_law_uniform():
    times = taught(VP(), law=torch.zeros_like)
    np.testing.assert_allclose(times.probabilities(), 1 / 20, rtol=1e-14)


def quadrature(times, order=12):
    """Nodes u and weights that integrate over u exactly, bin by bin, whatever is smooth in t."""
    x, w = np.polynomial.legendre.leggauss(order)
    ends = np.concatenate([[0.0], times.probabilities().cumsum(0).numpy()])
    width = np.diff(ends)[:, None]
    return torch.from_numpy((ends[:-1, None] + width * (x + 1) / 2).ravel()), torch.from_numpy((width * w / 2).ravel())


def test_weighted_draws_have_the_mean_of_uniform_ones():
    times = taught(VP(t_min=1e-9))
    u, weights = quadrature(times)
    t = times.quantile(u)
    for function, mean in ((torch.exp, np.e - 1), (torch.cos, np.sin(1)), (squared, 1e-3 + 1)):
        assert (weights * times.importance(t) * function(t)).sum().item() == pytest.approx(mean, rel=1e-12)
        assert (weights * function(t)).sum().item() != pytest.approx(mean, rel=1e-2)  # unweighted it is another mean


def test_adaptive_times_lower_the_variance_of_the_loss_to_that_within_its_bins():
    times = taught(VP(t_min=1e-9), bins=50, floor=1e-6)
    u, weights = quadrature(times)
    t = times.quantile(u)
    mean, uniform = 1e-3 + 1, 1e-6 + 2e-3 + 9 / 5  # of squared(t) and of its square under uniform times
    adaptive = (weights * (times.importance(t) * squared(t)) ** 2).sum().item()
    assert uniform - mean**2 > 0.79
    assert 0 <= adaptive - mean**2 < 1e-2


@pytest.mark.parametrize(("steps", "bins", "used"), [(100, 10, 10), (100, 30, 30), (50, 100, 50), (97, 20, 20)])
def test_each_level_of_a_chain_is_hit_with_its_share_of_its_bin(steps, bins, used):
    times = taught(LinearChain(steps), bins=bins)
    assert len(times.probabilities()) == used
    sizes = (times.ends.diff() * steps).round().long()
    assert sizes.max() - sizes.min() <= 1
    found = torch.bincount((times.schedule.snap(times.quantile(shares(100_000))).t * steps).round().long())
    expected = (times.probabilities() / sizes).repeat_interleave(sizes)
    np.testing.assert_allclose(found[1:] / 100_000, expected, atol=2e-5)
    assert found[0] == 0
    level = times.schedule.probe().t
    torch.testing.assert_close(times.importance(level), 1 / (steps * expected), rtol=1e-12, atol=0)


def test_what_it_learned_survives_a_state_dict():
    old, new = taught(LinearChain(100)), LossAwareTimes(LinearChain(100), bins=20, warmup=2, floor=0.05)
    assert not torch.equal(new.probabilities(), old.probabilities())
    new.load_state_dict({name: value.clone() for name, value in old.state_dict().items()})
    assert torch.equal(new.probabilities(), old.probabilities())
    assert torch.equal(new.quantile(shares(300)), old.quantile(shares(300)))
    for times in (old, new):
        times.observe(shares(40), squared(shares(40)))
    assert torch.equal(new.second_moment, old.second_moment)
    assert set(old.state_dict()) == {"second_moment", "seen"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"bins": 0}, "times.bins must be at least 1, got 0"),
        ({"decay": 1.0}, r"times.decay must be in \[0, 1\), got 1.0"),
        ({"warmup": 0}, "times.warmup must be at least 1, got 0"),
        ({"floor": 0.0}, r"times.floor must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_settings_of_adaptive_times_are_refused_by_name(bad, message):
    with pytest.raises(UserError, match=message):
        LossAwareTimes(VP(), **bad)


def test_uniform_times_of_edm_are_uniform_in_log_sigma_and_adaptive_bins_too():
    schedule = LinearSigma()
    u = shares(1000)
    sigma = schedule.snap(UniformTimes(schedule).quantile(u)).sigma
    np.testing.assert_allclose(sigma, 0.002 * (80 / 0.002) ** u.numpy(), rtol=1e-10)
    adaptive = LossAwareTimes(schedule, bins=4, warmup=1)
    adaptive.observe(schedule.time(-2 * torch.tensor([0.01, 0.1, 1.0, 30.0]).double().log()), torch.ones(4))
    assert adaptive.seen.tolist() == [1, 1, 1, 1]


def test_log_normal_sigmas_scale_with_the_data():
    one, other = (LogNormalSigma(LinearSigma(1e-9, 1e9), sigma_data=s) for s in (0.5, 7.0))
    u = shares(99)
    np.testing.assert_allclose(other.quantile(u) / one.quantile(u), 14.0, rtol=1e-9)


def test_losses_that_are_not_finite_teach_nothing():
    times = LossAwareTimes(VP(), bins=2, warmup=1)
    times.observe(torch.tensor([0.3, 0.3, 0.8]).double(), torch.tensor([torch.inf, 2.0, torch.nan]))
    assert times.second_moment.tolist() == [4.0, 0.0]
    assert times.seen.tolist() == [1, 0]
