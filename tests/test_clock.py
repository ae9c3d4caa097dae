"""Where the time of a run goes: a clock that is moved by hand."""

import pytest

from litdiffusion import clock as module
from litdiffusion.clock import Budget, Clock
from litdiffusion.modules.throughput import Throughput


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


def test_throughput_counts_the_time_of_training_alone(hand):
    clock = Clock()
    clock.start()
    throughput = Throughput(clock, step=10)
    for section, seconds in (("step", 6), ("data", 1), ("logging", 1), ("drawing", 32)):
        with clock(section):
            hand.passes(seconds)
    row = throughput.row(step=30, samples_per_step=64)
    assert row["time/samples_per_second"] == 20 * 64 / 8
    assert row["time/step_percent"] == 15
    assert row["time/drawing_percent"] == 80
    with clock("step"):
        hand.passes(2)
    assert throughput.row(step=40, samples_per_step=64)["time/samples_per_second"] == 10 * 64 / 2
