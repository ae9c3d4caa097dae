"""One run on W&B, however often it was stopped; the jobs of a sweep under their sweep's name."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import wandb
from conftest import TINY
from wandb_records import records

from litdiffusion.runs.dashboards import EXIT_CODES
from litdiffusion.runs.record import read_record
from litdiffusion.training import DiffusionModule

SMALL = [
    *TINY,
    "callbacks=none",
    "data.size=600",
    "trainer.enable_progress_bar=false",
    "schedule.steps=50",
    "logger=wandb",
]
LAST = ["+callbacks.last._target_=litdiffusion.callbacks.LastCheckpoint", "+callbacks.last.every_n_steps=2"]


def attempts(folder: Path) -> list[list]:
    """The records of each offline file of a run, in the order of the attempts."""
    wandb.teardown()  # waits for its service
    paths = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    return [list(records(path)) for path in paths]


def of_kind(found: list, kind: str) -> list:
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def items(found: list, kind: str) -> list[dict[str, str]]:
    rows = of_kind(found, kind)
    lists = [row.item if kind == "history" else row.update for row in rows]
    return [{item.key or ".".join(item.nested_key): item.value_json for item in row} for row in lists]


def test_a_stopped_job_goes_on_as_the_same_wandb_run(command, tmp_path, monkeypatch):
    step = DiffusionModule.training_step

    def signalled(self, *args, **kwargs):
        if self.trainer.global_step >= 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    line = ["train.py", "-m", "seed=5", "sweep=s", *SMALL, *LAST]
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "training_step", signalled)
        assert command(*line)[0] == 143
    (folder,) = (tmp_path / "outputs/sweeps/s").glob("*seed-5*")
    wandb_id = read_record(folder).wandb_id
    assert command(*line)[0] == 0
    assert read_record(folder).wandb_id == wandb_id
    first, second = attempts(folder)
    for found in (first, second):
        (run,) = of_kind(found, "run")[:1]
        assert (run.run_id, run.run_group, run.job_type, run.display_name) == (wandb_id, "s", "train", folder.name)
    assert [[exit.exit_code for exit in of_kind(found, "exit")] for found in (first, second)] == [[255], [0]]
    states = [[row["status"] for row in items(found, "summary") if "status" in row] for found in (first, second)]
    assert states == [['"running"', '"stopped"'], ['"running"', '"complete"']]
    with (folder / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    best = [json.loads(row["train/loss"])["min"] for row in items(second, "summary") if "train/loss" in row][-1]
    assert len(losses) == 2
    assert best == min(losses)  # of both attempts, although W&B counts those of each
    rows = [[int(row["_step"]) for row in items(found, "history")] for found in (first, second)]
    assert max(rows[0]) < min(rows[1])
    assert rows[1] == sorted(set(rows[1]))


def test_the_config_stands_before_the_first_number_and_an_agents_id_is_kept(command, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "agent123")
    assert command("train.py", "sweep=s", "seed=7", *SMALL)[0] == 0
    (folder,) = (tmp_path / "outputs/sweeps/s").glob("*seed-7*")
    (found,) = attempts(folder)
    kinds = [record.WhichOneof("record_type") for record in found]
    configured = [any(item.key == "optimizer" for item in record.config.update) for record in found]
    assert configured.index(True) < kinds.index("history")
    assert read_record(folder).wandb_id == of_kind(found, "run")[0].run_id == "agent123"


@pytest.mark.parametrize("status", ["complete", "stopped", "failed", "pruned"])
def test_every_end_has_an_exit_code(status):
    assert (EXIT_CODES[status] == 0) == (status in ("complete", "pruned"))
