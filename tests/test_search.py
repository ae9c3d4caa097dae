"""The search: continued to a total, taken up after a kill, pruned; every trial is a job of the sweep."""

from pathlib import Path

import pytest
from conftest import SMALL_JOB
from hydra.core.override_parser.overrides_parser import OverridesParser

pytest.importorskip("optuna", reason="needs the optuna extra")

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from litdiffusion.errors import UserError
from litdiffusion.runs.record import RunRecord, read_record, write_record
from litdiffusion.sweeps import search

TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0}
RATES = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


def parsed(*words: str):
    return OverridesParser.create().parse_overrides(list(words))


def stored(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/optuna.db")


def test_ranges_of_the_command_line_become_distributions():
    words = parsed("seed=3", RATES, "a=interval(0,1)", "b=range(2,9,3)", "model=mlp,unet", "c=int(interval(1,4))")
    assert search.space_of(words) == {
        "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "a": FloatDistribution(0, 1),
        "b": IntDistribution(2, 8, step=3),
        "model": CategoricalDistribution(["mlp", "unet"]),
        "c": IntDistribution(1, 4),
    }
    assert search.fixed_of(words) == ["seed=3"]
    assert search.overrides_of({"a": 1 / 3, "model": "unet", "b": 5}) == ["a=0.333333", "model=unet", "b=5"]


def test_every_choice_is_looked_at_before_the_first_trial():
    points = search.points_with_every_choice(
        search.space_of(parsed("model=mlp,unet,diffusers_unet", "recipe=vp,edm", "lr=interval(1,2)"))
    )
    assert {point["model"] for point in points} == {"mlp", "unet", "diffusers_unet"}
    assert {point["recipe"] for point in points} == {"vp", "edm"}


def ended(folder: Path, job: str, status: str, **metrics: float) -> Path:
    (folder / job).mkdir()
    write_record(folder / job, RunRecord(status, {"metric": "val/loss"}, metrics=metrics))
    return folder / job


def test_trials_end_as_their_jobs_did_and_those_of_a_killed_command_come_first(tmp_path):
    space = search.space_of(parsed(RATES))
    study = search.open_study(tmp_path, ["seed=1"], "min", TPE, None)
    first, second, third = search.next_trials(study, space, total=4, count=3)
    search.end_trial(study, first, ended(tmp_path, "a", "complete", **{"val/loss": 0.25}))
    search.end_trial(study, second, ended(tmp_path, "b", "complete", **{"val/loss": float("nan")}))
    again = search.open_study(tmp_path, ["seed=1", "logger=none"], "min", TPE, None)  # the third was never told
    left, fourth = search.next_trials(again, space, total=4, count=2)
    assert (left.number, left.params) == (third.number, third.params)
    search.end_trial(again, left, ended(tmp_path, "c", "failed"))
    search.end_trial(again, fourth, ended(tmp_path, "d", "pruned"))
    assert search.next_trials(again, space, total=4, count=2) == []
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "FAIL", "FAIL", "PRUNED"]
    assert again.best_value == 0.25
    assert len({trial.params["optimizer.lr"] for trial in again.trials}) == 4  # the restart proposes nothing twice
    with pytest.raises(UserError, match="was started with seed=1, this command has seed=2"):
        search.open_study(tmp_path, ["seed=2"], "min", TPE, None)


def test_a_search_is_continued_to_its_total(command, tmp_path):
    line = ["train.py", "-m", "sweep=s", "hydra/sweeper=optuna", RATES, *SMALL_JOB]
    status, out, err = command(*line, "hydra.sweeper.n_trials=2")
    assert status == 0, err
    assert "2 of 2 jobs done" in out
    before = {path: path.read_bytes() for path in tmp_path.rglob("run.json")}
    assert command(*line, "hydra.sweeper.n_trials=3")[0] == 0
    folder = tmp_path / "outputs/sweeps/s"
    study = stored(folder)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert all(path.read_bytes() == content for path, content in before.items())
    for trial in study.trials:
        record = read_record(folder / trial.user_attrs["job"])
        assert record.metrics["val/loss"] == trial.value
        assert record.config["optimizer"]["lr"] == pytest.approx(trial.params["optimizer.lr"], rel=1e-5)


def test_a_hopeless_trial_is_given_up(command, tmp_path):
    pruner = [
        "hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner",
        "+hydra.sweeper.pruner.upper=0.01",  # no loss is below it
        "~hydra.sweeper.pruner.n_startup_trials",
    ]
    small = [word for word in SMALL_JOB if not word.startswith("trainer.val_check")]
    line = ["train.py", "-m", "sweep=s", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", RATES, *pruner, *small]
    status, out, err = command(*line, "trainer.val_check_interval=2")
    assert status == 0, err
    assert "given up by the search at step 2" in out
    folder = tmp_path / "outputs/sweeps/s"
    (trial,) = stored(folder).trials
    record = read_record(folder / trial.user_attrs["job"])
    assert (trial.state, record.status) == (TrialState.PRUNED, "pruned")
    assert trial.intermediate_values == {2: pytest.approx(record.metrics["val/loss"])}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([RATES], "needs sweep=NAME"),
        (["sweep=s"], "a search needs a range"),
        (["sweep=s", RATES, "hydra.sweeper.n_trials=0"], "n_trials must be a whole number of at least 1, got 0"),
        (["sweep=s", RATES, "hydra.sweeper.direction=up"], "direction must be auto, min or max, got 'up'"),
        (["sweep=s", "optimizer.rl=interval(0,1)"], "did you mean optimizer.lr?"),
    ],
)
def test_a_bad_search_ends_in_one_line(words, message, command, tmp_path):
    status, _, err = command("train.py", "-m", "hydra/sweeper=optuna", *SMALL_JOB, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert not list(tmp_path.rglob("optuna.db"))
