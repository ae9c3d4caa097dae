"""The weight average, the learning rates and the means per quartile of time, against arithmetic by hand."""

import math

import pytest
import torch
from torch import nn

from litdiffusion.errors import UserError
from litdiffusion.training.ema import EMA
from litdiffusion.training.lr import WarmupConstant, WarmupCosine, WarmupStableDecay
from litdiffusion.training.quartiles import quartile_means, quartile_sums


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def nudge(model, step):
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_average_follows_its_recursion_through_the_warm_up(decay):
    model = net()
    ema = EMA(model, decay)
    expected = [p.detach().double().clone() for p in model.parameters()]
    for step in range(60):
        nudge(model, step)
        ema.update(model, step)
        d = min(decay, (1 + step) / (10 + step))
        expected = [d * e + (1 - d) * p.detach().double() for e, p in zip(expected, model.parameters(), strict=True)]
    for average, e in zip(ema.model.parameters(), expected, strict=True):
        torch.testing.assert_close(average.double(), e, rtol=1e-6, atol=2e-6)


def test_first_update_keeps_a_tenth_of_the_random_start():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 10.0)
    ema = EMA(model, 0.999)
    nn.init.constant_(model.weight, 0.0)
    ema.update(model, 0)
    assert ema.model.weight.item() == pytest.approx(1.0, rel=1e-6)
    ema.update(model, 1)
    assert ema.model.weight.item() == pytest.approx(2 / 11, rel=1e-6)


def test_decay_takes_over_where_the_warm_up_passes_it():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    ema = EMA(model, 0.9)
    nn.init.constant_(model.weight, 0.0)
    for step, left in ((79, 80 / 89), (80, 0.9), (81, 0.9), (10**6, 0.9)):
        before = ema.model.weight.item()
        ema.update(model, step)
        assert ema.model.weight.item() / before == pytest.approx(left, rel=1e-6)


def test_zero_decay_keeps_the_average_equal_to_the_weights_bit_for_bit():
    model = net()
    ema = EMA(model, 0.0)
    for step in range(3):
        nudge(model, step)
        ema.update(model, step)
        assert all(torch.equal(a, b) for a, b in zip(ema.model.parameters(), model.parameters(), strict=True))


def test_constant_weights_stay_where_they_are_bit_for_bit():
    model = net()
    ema = EMA(model, 0.999)
    for step in range(50):
        ema.update(model, step)
    assert all(torch.equal(a, b) for a, b in zip(ema.model.parameters(), model.parameters(), strict=True))


def test_buffers_are_copied_not_averaged():
    model = net()
    ema = EMA(model, 0.999)
    model(torch.randn(16, 3) * 5 + 2)
    assert not torch.equal(ema.model[1].running_mean, model[1].running_mean)
    ema.update(model, 0)
    assert torch.equal(ema.model[1].running_mean, model[1].running_mean)
    assert torch.equal(ema.model[1].running_var, model[1].running_var)
    assert ema.model[1].num_batches_tracked.item() == 1


def test_average_stays_in_eval_mode_without_gradients_and_apart_from_the_model():
    model = net()
    parent = nn.ModuleDict({"net": model, "ema": EMA(model, 0.9)})
    parent.train()
    average = parent["ema"].model
    assert model.training
    assert not any(m.training for m in average.modules())
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in model.parameters())
    before = [p.clone() for p in average.parameters()]
    nudge(model, 0)
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), before, strict=True))


def test_average_goes_on_from_a_loaded_state_dict():
    model = net()
    ema, fresh = EMA(model, 0.9), EMA(net(), 0.9)
    for step in range(5):
        nudge(model, step)
        ema.update(model, step)
    fresh.load_state_dict(ema.state_dict())
    nudge(model, 5)
    ema.update(model, 5)
    fresh.update(model, 5)
    assert all(torch.equal(a, b) for a, b in zip(ema.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_decay_outside_0_and_1_is_refused(decay):
    with pytest.raises(UserError, match=rf"must lie in \[0, 1\) .*got {decay}; 0.999 is usual"):
        EMA(net(), decay)


def rates(count, make, **settings):
    """What the scheduler makes of a rate of 1 in steps 0..count-1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(optimizer, **settings), []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_rate_warms_up_halves_at_the_middle_and_ends_at_its_final_share(final):
    rate = rates(1500, WarmupCosine, total_steps=1100, warmup_steps=100, final=final)
    assert rate[0] == pytest.approx(0.01)
    assert rate[49] == pytest.approx(0.5)
    assert rate[99] == pytest.approx(1.0)
    assert rate[100] == pytest.approx(1.0)
    assert rate[350] == pytest.approx(final + (1 - final) * (1 + math.sqrt(0.5)) / 2)
    assert rate[600] == pytest.approx((1 + final) / 2)
    assert rate[1100] == pytest.approx(final, abs=1e-15)
    assert rate[1499] == pytest.approx(final, abs=1e-15)


def test_cosine_rate_equals_torchs_annealing_after_the_warm_up():
    expected = rates(80, torch.optim.lr_scheduler.CosineAnnealingLR, T_max=80, eta_min=0.2)
    found = rates(100, WarmupCosine, total_steps=100, warmup_steps=20, final=0.2)
    assert found[20:] == pytest.approx(expected, rel=1e-9)


def test_a_rate_that_is_held_then_falls_on_a_line_to_its_final_share():
    rate = rates(1500, WarmupStableDecay, total_steps=1100, warmup_steps=100, hold=0.3, final=0.1)
    assert [rate[k] for k in (49, 99, 100, 400)] == pytest.approx([0.5, 1, 1, 1])
    assert rate[750] == pytest.approx(0.1 + 0.9 / 2)  # half of the way from 400 to 1100
    assert (rate[1100], rate[1499]) == pytest.approx((0.1, 0.1))
    expected = rates(80, torch.optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=80)
    assert rates(80, WarmupStableDecay, total_steps=80, warmup_steps=0, hold=0.0) == pytest.approx(expected)
    held = rates(40, WarmupStableDecay, total_steps=40, warmup_steps=4, hold=1.0)
    assert held == rates(40, WarmupConstant, warmup_steps=4)


def test_constant_rate_warms_up_and_stays():
    rate = rates(1000, WarmupConstant, warmup_steps=4)
    assert [rate[k] for k in (0, 1, 2, 3, 4, 999)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("make", "length"), [(WarmupConstant, {}), (WarmupCosine, {"total_steps": 10})])
def test_without_warm_up_the_first_step_has_the_full_rate(make, length):
    assert rates(1, make, warmup_steps=0, **length) == [1.0]


def test_a_rate_goes_on_from_its_state():
    """As in a checkpoint: what a fresh scheduler loads has no function in it, and gives the same rates."""
    optimizers = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    first, second = (WarmupCosine(optimizer, total_steps=50, warmup_steps=5) for optimizer in optimizers)
    for _ in range(20):
        optimizers[0].step()
        first.step()
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(20):
        for optimizer, scheduler in zip(optimizers, (first, second), strict=True):
            optimizer.step()
            scheduler.step()
        assert first.get_last_lr() == second.get_last_lr() == [optimizers[1].param_groups[0]["lr"]]


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (WarmupConstant, {"warmup_steps": -1}, "warmup_steps must not be negative, got -1"),
        (WarmupCosine, {"total_steps": 10, "warmup_steps": -1}, "warmup_steps must not be negative, got -1"),
        (WarmupCosine, {"total_steps": 10, "final": 1.5}, r"final must lie in \[0, 1\] .*got 1.5"),
        (WarmupStableDecay, {"total_steps": 10, "hold": -0.1}, r"hold must lie in \[0, 1\] .*got -0.1"),
        (
            WarmupStableDecay,
            {"total_steps": math.inf},
            r"needs a run of known length; set trainer.max_steps or trainer.max_epochs",
        ),
        (
            WarmupCosine,
            {"total_steps": math.inf},
            r"needs a run of known length; set trainer.max_steps or trainer.max_epochs",
        ),
    ],
)
def test_bad_rates_are_refused(make, settings, message):
    with pytest.raises(UserError, match=message):
        rates(1, make, **settings)


def test_quartile_means_by_hand_with_borders_belonging_to_the_quartile_below():
    t = torch.tensor([0.001, 0.25, 0.2500001, 0.5, 0.75, 0.7500001, 1.0], dtype=torch.float64)
    values = torch.tensor([1.0, 3.0, 10.0, 20.0, 100.0, 5.0, 7.0])
    means = {name: mean.item() for name, mean in quartile_means(quartile_sums(t, values), "x").items()}
    overall = means.pop("x")
    assert means == {"x_t_0_25": 2.0, "x_t_25_50": 15.0, "x_t_50_75": 100.0, "x_t_75_100": 6.0}
    assert overall == pytest.approx(146 / 7)


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        ([0.1, 0.9, 0.95], {"x": 2.0, "x_t_0_25": 1.0, "x_t_75_100": 2.5}),
        ([0.3, 0.4, 0.5], {"x": 2.0, "x_t_25_50": 2.0}),
    ],
)
def test_empty_quartiles_are_left_out(t, expected):
    means = quartile_means(quartile_sums(torch.tensor(t, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0])), "x")
    assert {name: mean.item() for name, mean in means.items()} == expected


def test_quartile_sums_add_up_over_batches_of_any_size():
    generator = torch.Generator().manual_seed(0)
    t, values = torch.rand(2, 400, dtype=torch.float64, generator=generator).unbind()
    parts = sum(quartile_sums(a, b) for a, b in zip(t.split(17), values.split(17), strict=True))
    torch.testing.assert_close(parts, quartile_sums(t, values))
    assert quartile_means(parts, "x")["x"].item() == pytest.approx(values.mean().item(), rel=1e-12)
