"""``budget``: steps from a time, kept from then on, and no other change of a run."""

import time
from itertools import count

import lightning as L
import pytest
import torch
from conftest import BARE_RUN, composed
from test_faults import weights

from litdiffusion.build import Run
from litdiffusion.commands import budget
from litdiffusion.commands.budget import Speed, measured_speed, steps_within
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.record import read_record

SHORT = [word for word in BARE_RUN if "max_steps" not in word]
FORTY = Speed(step=1.0, validation=2.0, measurement=10.0, interval=10.0)


class Breaks(L.Callback):
    """Ends a run in its sixth step."""

    def on_train_batch_start(self, trainer: L.Trainer, *args: object) -> None:
        if trainer.global_step == 5:
            raise TrainingError("broken on purpose")


def budgeted(command, *words: str) -> tuple[int, str, str]:
    return command("train.py", *SHORT, "name=run", *words)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch):
    """Sets the measured speed; None: measuring is an error."""

    def measure(value: Speed | None) -> None:
        def fixed(*args: object) -> Speed:
            assert value is not None, "the speed was measured again"
            return value

        monkeypatch.setattr(budget, "measured_speed", fixed)

    return measure


@pytest.fixture
def composed_run(tmp_path):
    return composed(*SHORT, "budget=00:01:40"), Run(tmp_path / "run")


def test_the_steps_and_their_validations_fill_the_time():
    # 120 s - 10 s measured, half of it for callbacks, 2 s of the last validation: 53 s in steps of 1 + 2/10 s.
    assert steps_within(120, FORTY, share=0.5) == 44
    assert steps_within(120, FORTY._replace(validation=0.0)) == 110
    with pytest.raises(UserError, match="budget of 12 s is too short: a step takes 1 s"):
        steps_within(12, FORTY)


def test_the_speed_is_the_wall_time_of_steps_and_validations(composed_run, monkeypatch):
    ticks = count()
    monkeypatch.setattr(time, "perf_counter", lambda: 0.5 * next(ticks))
    cfg, run = composed_run
    found = measured_speed(cfg, run, 100.0)
    assert found.step >= 0.5  # half a second at each look at the clock, at least one look a step
    assert found.interval == 4
    assert not run.dir.exists() or not any(run.dir.iterdir())


def test_a_run_with_a_budget_is_the_run_of_its_steps(command, speed, tmp_path):
    speed(FORTY)
    status, out, err = budgeted(command, "budget=00:00:22")
    assert status == 0, err
    # The callbacks of this run take no share: 12 s - 2 s over 1 + 2/10 s.
    assert "budget 00:00:22: 8 steps of 1 s" in out
    assert "trainer.max_steps=8 repeats this run" in out
    assert command("train.py", *SHORT, "name=same", "trainer.max_steps=8")[0] == 0
    ours, theirs = (weights(tmp_path / "outputs" / name) for name in ("run", "same"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_steps_are_kept_while_the_budget_is_the_same(command, speed, tmp_path):
    speed(FORTY)
    assert budgeted(command, "budget=00:00:22")[0] == 0
    speed(None)
    status, out, _ = budgeted(command, "budget=00:00:22")
    assert status == 0
    assert "is complete: 8 steps" in out
    speed(FORTY)
    assert budgeted(command, "budget=00:00:34")[0] == 0
    assert read_record(tmp_path / "outputs/run").step == 18


def test_an_unfinished_run_keeps_its_steps(command, speed, tmp_path):
    speed(FORTY)
    words = ["budget=00:00:22", "save_every=2"]
    status, _, err = budgeted(command, *words, "trainer.callbacks=[{_target_: test_budget.Breaks}]")
    assert status != 0
    assert "broken on purpose" in err
    speed(None)
    status, out, err = budgeted(command, *words)
    assert status == 0, err
    assert "from step 5" in out
    assert read_record(tmp_path / "outputs/run").step == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["budget=8"], "budget must be hours:minutes:seconds, such as 00:08:00 for eight minutes, got 8"),
        (["budget=00:00:00"], "budget must be hours:minutes:seconds"),
        (["budget=08:00"], "budget must be hours:minutes:seconds"),
        (["budget=00:08:00", "trainer.max_steps=9"], "budget and trainer.max_steps both set the length of the run"),
        (["budget=00:08:00", "trainer.max_epochs=9"], "budget and trainer.max_epochs both set the length of the run"),
        (["budget=00:08:00", "trainer.devices=2"], "budget is measured in one process, not in 2; set trainer.max_st"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(command, words, message):
    status, _, err = budgeted(command, *words)
    assert status == 2
    assert err.startswith(f"error: {message}"), err
    assert err.count("\n") == 1, err


def test_a_dry_run_prints_the_measured_steps(command, speed):
    speed(FORTY)
    status, out, err = budgeted(command, "budget=00:00:22", "dry_run=true")
    assert status == 0, err
    assert "8 of 1 x 512 items" in out
