"""Where the time of a run goes: a clock that is moved by hand."""

import pytest
import torch

from litdiffusion.diffusion.objectives import Losses
from litdiffusion.training import clock as module
from litdiffusion.training.clock import Budget, Clock
from litdiffusion.training.quartiles import quartile_means, sums_by_quartile
from litdiffusion.training.train_log import TrainLog


class Hand:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(module.time, "perf_counter", hand.perf_counter)
    return hand


def test_a_moment_belongs_to_the_innermost_section(hand):
    clock = Clock()
    clock.start()
    with clock("outer"):
        hand.passes(3)
        with clock("inner"):
            hand.passes(5)
        hand.passes(1)
    hand.passes(7)
    assert dict(clock.seconds) == {"outer": 4, "inner": 5}
    assert (clock.last["outer"], clock.last["inner"]) == (4, 5)
    assert clock.elapsed == 16
    assert clock.share("outer", "inner") == 9 / 16
    clock.stop()
    hand.passes(100)
    assert clock.elapsed == 16


def test_what_ran_before_the_start_does_not_count(hand):
    clock = Clock()
    with clock("early"):
        hand.passes(5)
    assert clock.share("early") == 0
    clock.start()
    hand.passes(1)
    assert clock.share("early") == 0


def test_a_section_ends_with_its_block_even_where_that_fails(hand):
    clock = Clock()
    clock.start()

    def fail() -> None:
        with clock("work"):
            hand.passes(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    hand.passes(2)
    assert clock.seconds["work"] == 2


@pytest.mark.parametrize(("ahead", "largest"), [(1, 10), (3, 8)])
def test_a_budget_keeps_a_recurring_job_within_its_share(hand, ahead, largest):
    """A job of 4 s offered every 10 s: 10 % of 400 s leave room for 10 of them, or 8 where two more are set aside."""
    clock = Clock()
    clock.start()
    budget, spent = Budget(clock, "job", 0.1, ahead), []
    for _ in range(40):
        hand.passes(10)
        if budget.allows():
            with budget.spend():
                hand.passes(4)
            spent.append(budget.share)
    assert spent[0] > 0.1  # the first is never left out
    assert largest - 1 <= budget.done <= largest + 2
    assert budget.share <= 0.1
    assert Budget(clock, "job", None).allows()


def means(losses: Losses) -> dict[str, torch.Tensor]:
    return quartile_means(sums_by_quartile(losses, lambda t: t), "train/loss")


def test_throughput_counts_the_time_of_training_alone(hand):
    clock, losses = Clock(), Losses(torch.ones(64), torch.full((64,), 0.5))
    clock.start()
    log = TrainLog(clock, Losses)

    def seen(batches: int) -> dict:
        for _ in range(batches):
            log.add(losses)
            log.end_step()
        return log.row(means, processes=2)

    for section, seconds in (("step", 6), ("data", 2), ("drawing", 32)):
        with clock(section):
            hand.passes(seconds)
    row = seen(20)
    assert row["time/samples_per_second"] == 2 * 20 * 64 / 8
    assert row["time/step_percent"] == 15
    assert row["time/drawing_percent"] == 80
    with clock("step"):
        hand.passes(2)
    assert seen(10)["time/samples_per_second"] == 2 * 10 * 64 / 2


def test_a_row_has_the_mean_loss_since_the_last_one_without_steps_that_were_left_out(hand):
    """Batches of 2 and 3 items of one step, a step that is left out, and a row of nothing but such a step."""
    log = TrainLog(Clock(), Losses)
    log.add(Losses(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2])))
    log.add(Losses(torch.tensor([3.0, 4.0, 5.0]), torch.tensor([0.2, 0.6, 0.7])))
    log.end_step()
    log.add(Losses(torch.full((2,), torch.nan), torch.tensor([0.1, 0.9])))
    log.leave_out(log.current)
    log.end_step()
    row = {name: float(value) for name, value in log.row(means, processes=1).items() if name[:5] == "train"}
    assert row == {"train/loss": 3.0, "train/loss_t_0_25": 2.0, "train/loss_t_50_75": 4.5}
    log.add(Losses(torch.ones(2), torch.tensor([0.1, 0.9])))
    late = list(log.current)
    log.end_step()
    log.leave_out(late)  # a GPU's verdict comes after the step
    assert "train/loss" not in log.row(means, processes=1)
