"""Sweeps: folders by overrides, what a second command does, the table, launchers."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from conftest import SMALL_JOB
from PIL import Image

from litdiffusion.errors import UserError
from litdiffusion.runs.record import RunRecord, locked, read_record, write_record
from litdiffusion.sweeps import job_name, sweep_folder
from litdiffusion.sweeps.comparison import compare, text, write_files
from litdiffusion.training import DiffusionModule

LAST = ["+callbacks.last._target_=litdiffusion.callbacks.LastCheckpoint", "+callbacks.last.every_n_steps=2"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


def records(folder: Path) -> dict[str, RunRecord]:
    """The jobs' records by the value of the override that they differ in."""
    found = {path.parent.name: read_record(path.parent) for path in folder.glob("*/run.json")}
    return {
        next(word for word in record.overrides if word[:4] in ("seed", "opti")): record for record in found.values()
    }


def test_a_jobs_name_depends_on_what_it_computes_alone():
    name = job_name(["seed=1", "schedule=linear", "optimizer.lr=1e-3"])
    assert name == "schedule-linear_seed-1_optimizer.lr-1e-3"
    assert job_name(["optimizer.lr=1e-3", "seed=1", "schedule=linear"]) == name
    beside = ["sweep=s", "retries=0", "logger=wandb", "logger.wandb.mode=offline", "hydra/launcher=joblib", "threads=1"]
    assert job_name(["seed=1", *beside, "schedule=linear", "+optimizer.lr=1e-3"]) == name
    assert job_name([]) == "default"


def test_names_stay_safe_short_and_apart():
    odd = [["data.path='a/b'"], ["data.path=a b"], ["model.hidden=[64,64]"], ["model.hidden=[64.64]"]]
    long = [[*(f"some.long.key_{i}=1" for i in range(30)), f"seed={seed}"] for seed in (1, 2)]
    names = [job_name(overrides) for overrides in odd + long]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") for name in names)
    assert max(map(len, names)) < 120


@pytest.mark.parametrize("name", ["../up", "a/b", "", "a b", ".."])
def test_a_sweeps_name_names_a_folder(name):
    with pytest.raises(UserError, match="must consist of letters"):
        sweep_folder(name, "unnamed")


def test_a_sweep_keeps_failures_skips_what_is_done_and_takes_new_values(command, tmp_path):
    line = ("train.py", "-m", "sweep=my", "retries=1", *SMALL_JOB)
    status, out, err = command(*line, "optimizer.lr=1e-3,1e30")
    assert status == 1
    assert "Traceback" not in err
    assert "1 of 2 jobs done" in out
    folder = tmp_path / "outputs/sweeps/my"
    first = records(folder)
    assert first["optimizer.lr=0.001"].status == "complete"
    assert (first["optimizer.lr=1e+30"].status, first["optimizer.lr=1e+30"].failures) == ("failed", 1)
    assert "non-finite at step" in first["optimizer.lr=1e+30"].error

    status, out, _ = command(*line, "optimizer.lr=1e-3,1e30,2e-3")  # the failed one again, the new one, not the first
    assert status == 1
    second = records(folder)
    assert second["optimizer.lr=0.001"] == first["optimizer.lr=0.001"]
    assert second["optimizer.lr=1e+30"].failures == 2
    assert second["optimizer.lr=0.002"].status == "complete"

    status, out, _ = command(*line, "optimizer.lr=1e30")
    assert status == 1
    assert "failed 2 times and is not tried again (retries=1)" in out
    assert records(folder) == second
    table = rows(folder)
    assert [row["optimizer.lr"] for row in table] == ["0.001", "0.002", "1e+30"]
    assert [row["status"] for row in table] == ["complete", "complete", "failed"]
    assert {row["val/loss"] == "" for row in table if row["status"] == "failed"} == {True}
    assert float(table[0]["val/loss"]) == first["optimizer.lr=0.001"].metrics["val/loss"]
    assert Image.open(folder / "comparison.png").size[0] > 800


def test_an_interrupted_sweep_ends_like_one_that_was_not(command, tmp_path, monkeypatch):
    line = ["train.py", "-m", "seed=1,2", *SMALL_JOB, *LAST]
    assert command(*line, "sweep=whole")[0] == 0

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "training_step", _signalled(DiffusionModule.training_step))
        status, out, err = command(*line, "sweep=cut")
    assert status == 143, err
    assert "the same command continues it" in out
    cut = records(tmp_path / "outputs/sweeps/cut")
    assert (cut["seed=1"].status, cut["seed=2"].status) == ("complete", "stopped")
    status, out, err = command(*line, "sweep=cut")
    assert status == 0, err
    assert "2 of 2 jobs done" in out
    whole, again = records(tmp_path / "outputs/sweeps/whole"), records(tmp_path / "outputs/sweeps/cut")
    assert again["seed=1"] == cut["seed=1"]
    assert again["seed=2"].attempts == 2
    assert again["seed=2"].metrics == whole["seed=2"].metrics


def _signalled(step):
    """A training step that gets SIGTERM in its second call, for seed 2."""

    def run(self, *args, **kwargs):
        if self.seed == 2 and self.trainer.global_step >= 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    return run


def test_experiments_and_recipes_are_swept(command, tmp_path):
    quick = ["callbacks=none", "logger=none", "trainer.max_steps=1", "trainer.accelerator=cpu", "data.size=600"]
    words = ["experiment=spiral_edm,spiral_flow", "trainer.enable_progress_bar=false", "metric=val/loss", *quick]
    status, _, err = command("train.py", "-m", "sweep=e", *words)
    assert status == 0, err
    status, _, err = command("train.py", "-m", "sweep=r", "recipe=vp,flow", *words[1:])
    assert status == 0, err
    assert [row["recipe"] for row in rows(tmp_path / "outputs/sweeps/r")] == ["flow", "vp"]


def test_checks_are_swept(command):
    words = [
        "experiment=spiral_flow",
        "seed=1,2",
        "trainer.enable_progress_bar=false",
        "callbacks=none",
        "logger=none",
    ]
    stated = ["expected.metric=val/loss", "expected.value=0", "trainer.max_steps=1", "trainer.accelerator=cpu"]
    status, _, err = command("scripts/check.py", "-m", *words, *stated, "data.size=600")
    assert status == 1
    assert err.count("check failed: val/loss") == 3  # each job, and the first again at the end


def experiment(folder: Path, name: str, lr: float, steps: int = 4) -> None:
    """An experiment of a user's own, in a folder for ``--config-dir``."""
    path = folder / "own/experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# @package _global_\noptimizer: {{lr: {lr}}}\ntrainer: {{max_steps: {steps}}}\n")


@pytest.mark.slow
def test_a_new_job_of_other_yamls_joins_no_sweep_in_silence(command, tmp_path):
    own = [word for word in SMALL_JOB if not word.startswith("trainer.max_steps")]
    line = ["train.py", "--config-dir", str(tmp_path / "own"), "-m", "sweep=s", *own]
    experiment(tmp_path, "a", 1e-3)
    experiment(tmp_path, "b", 1e-3)
    assert command(*line, "experiment=a", "seed=1")[0] == 0
    assert command(*line, "experiment=a,b", "seed=1", "ema_decay=0.9", "schedule=cosine")[0] == 0  # further keys
    folder = tmp_path / "outputs/sweeps/s"
    before = {path: path.read_bytes() for path in folder.glob("*/run.json")}
    assert len(before) == 3

    experiment(tmp_path, "a", 2e-3)
    status, _, err = command(*line, "experiment=a", "seed=2")
    assert (status, err.count("Traceback")) == (2, 0)
    assert "this job is not like " in err
    assert "optimizer.lr is 0.001 there, 0.002 here; restore the yaml, or take another sweep=NAME, or give" in err
    assert "holds a run of another config" in command(*line, "experiment=a", "seed=1")[2]
    experiment(tmp_path, "a", 1e-3, steps=3)
    assert "trainer.max_steps is 4 there, 3 here" in command(*line, "experiment=a", "seed=2")[2]
    assert len(rows(folder)) == 3
    assert {path: path.read_bytes() for path in folder.glob("*/run.json")} == before

    experiment(tmp_path, "a", 2e-3)
    assert command(*line, "experiment=b", "seed=2")[0] == 0  # its own yaml is as it was
    assert command(*line, "experiment=a", "optimizer.lr=2e-3", "seed=2")[0] == 0  # a column of the table
    assert sorted(row["optimizer.lr"] for row in rows(folder)) == ["", "", "", "", "0.002"]


def test_a_job_by_itself_shares_the_sweeps_folder(command, tmp_path):
    assert command("train.py", "sweep=one", "seed=3", *SMALL_JOB)[0] == 0
    status, out, _ = command("train.py", "-m", "sweep=one", "seed=3", *SMALL_JOB)
    assert status == 0
    assert "complete" in out
    assert records(tmp_path / "outputs/sweeps/one")["seed=3"].attempts == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=a/b"], "must consist of letters"),
        (["sweep=a", "retries=-1"], "retries must be a whole number"),
        (["sweep=a", "resume=false"], "take another sweep=NAME"),
        (["sweep=a", "schedule=lin"], "did you mean"),
    ],
)
def test_bad_sweeps_end_without_a_traceback(words, message, command):
    status, _, err = command("train.py", "-m", "seed=1", *SMALL_JOB, *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def job(folder: Path, name: str, status: str, value: float | None, **changes) -> None:
    """A job's folder as training leaves it."""
    path = folder / name
    path.mkdir(parents=True)
    metrics = {} if value is None else {"quality/x": value, "val/loss": 1.0}
    overrides = [word.replace("-", "=", 1) for word in name.split("_")] + ["trainer.max_steps=5"]
    write_record(path, RunRecord(status, {"metric": "quality/x"}, overrides, metrics, minutes=1.5, **changes))


def test_the_table_names_the_best_and_what_went_wrong(tmp_path):
    job(tmp_path, "seed-1", "complete", 0.5, better="max")
    job(tmp_path, "seed-2", "complete", 0.75, better="max")
    job(tmp_path, "seed-3", "complete", float("nan"), better="max")
    job(tmp_path, "seed-4", "failed", None, error="the loss became non-finite at step 3")
    job(tmp_path, "seed-5", "running", None)
    job(tmp_path, "seed-6", "running", None)
    with locked(tmp_path / "seed-6"):
        comparison = compare(tmp_path)
    assert [job.status for job in comparison.jobs] == [*["complete"] * 3, "failed", "interrupted", "running"]
    assert comparison.varied == ["seed"]
    assert comparison.best.name == "seed-2"
    lines = text(comparison).splitlines()
    assert lines[2].split() == ["2", "complete", "0.75", "best", "1.5"]
    assert lines[-1] == "failed: seed=4: the loss became non-finite at step 3"
    write_files(comparison)
    assert [(row["seed"], row["quality/x"], row["val/loss"]) for row in rows(tmp_path)][:2] == [
        ("1", "0.5", "1.0"),
        ("2", "0.75", "1.0"),
    ]


def test_a_damaged_record_costs_one_row_of_the_table(tmp_path):
    for seed, value in ((1, 0.5), (2, 0.25), (3, 0.75)):
        job(tmp_path, f"seed-{seed}", "complete", value)
    (tmp_path / "seed-2/run.json").write_text('{"status": "comp')
    comparison = compare(tmp_path)
    assert comparison.varied == ["seed"]
    assert (comparison.metric, comparison.best.name) == ("quality/x", "seed-1")
    assert [job.name for job in comparison.unfinished] == ["seed-2"]
    lines = text(comparison).splitlines()
    assert lines[3].split() == ["seed-2", "unreadable", "0"]
    assert lines[-1].startswith("unreadable: seed-2: ")
    assert "run.json is not the record of a run" in lines[-1]
    write_files(comparison)
    assert [row["quality/x"] for row in rows(tmp_path)] == ["0.5", "0.75", ""]


def test_a_damaged_record_stops_no_other_job(tmp_path, command):
    line = ("train.py", "-m", "sweep=my", *SMALL_JOB)
    assert command(*line, "seed=1")[0] == 0
    (damaged,) = (tmp_path / "outputs/sweeps/my").glob("*/run.json")
    damaged.write_text("[]")
    status, _, err = command(*line, "seed=1,2")
    assert status == 2
    assert "Traceback" not in err
    assert "run.json is not the record of a run" in err
    assert [row["status"] for row in rows(damaged.parent.parent)] == ["complete", "unreadable"]
    assert damaged.read_text() == "[]"


def test_the_table_as_a_command(tmp_path, command):
    job(tmp_path / "s", "seed-1", "complete", 0.5)
    job(tmp_path / "s", "seed-2", "complete", 0.25)
    status, out, _ = command("scripts/compare.py", str(tmp_path / "s"))
    assert status == 0
    assert "0.25  best" in out
    status, _, err = command("scripts/compare.py", str(tmp_path / "nowhere"))
    assert (status, err.count("\n")) == (2, 1)
    assert "holds no jobs of a sweep" in err


def launched(command, launcher: str, folder: Path) -> None:
    status, _, err = command("train.py", "-m", "seed=1,2", "sweep=s", f"hydra/launcher={launcher}", *SMALL_JOB)
    assert status == 0, err
    found = records(folder / "outputs/sweeps/s")
    assert {key: record.status for key, record in found.items()} == {"seed=1": "complete", "seed=2": "complete"}
    before = {path: path.read_bytes() for path in folder.rglob("run.json")}
    assert command("train.py", "-m", "seed=1", "sweep=s", *SMALL_JOB)[0] == 0  # whoever launched them, they are done
    assert {path: json.loads(path.read_bytes()) for path in before} == {k: json.loads(v) for k, v in before.items()}


@pytest.mark.slow
def test_jobs_side_by_side(command, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the sweep extra")
    launched(command, "joblib", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_other_launchers(launcher, command, tmp_path):
    plugin = f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"
    pytest.importorskip(plugin, reason=f"needs the plugin of hydra/launcher={launcher}")
    launched(command, launcher, tmp_path)
