"""What W&B shows beyond numbers: the best of each metric, samples with classes, models, alerts; its own sweeps."""

import json
import os
import signal

import pytest
from conftest import SMALL_JOB, TINY_UNET, UNDRAWN
from wandb_records import of_kind, run_record, summary

from litdiffusion.errors import TrainingError
from litdiffusion.measure.quality import ImageQuality
from litdiffusion.reports.dashboard import link_to_runs
from litdiffusion.runs.metric_goals import goal
from litdiffusion.runs.record import RunRecord, read_record, write_record
from litdiffusion.training import DiffusionModule

WITH_WANDB = [*(word for word in SMALL_JOB if not word.startswith("logger")), "logger=wandb"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, "min") for name in ("train/loss", "val/loss", "val/loss_t_0_25", "val/best_loss", "val/kl")),
        *((name, "min") for name in ("likelihood/nats_best", "likelihood/bits_per_dimension", "quality/frechet")),
        *((name, "min") for name in ("quality/wasserstein_over_floor", "quality/class_error", "samples/energy")),
        *((name, "max") for name in ("quality/precision", "samples/class_accuracy", "val/accuracy")),
        *((name, None) for name in ("train/learning_rate", "train/gradient_norm", "time/step_percent", "epoch")),
        *((name, None) for name in ("quality/mode_0", "samples/share_near_origin", "pictures/loss", "quality")),
        *((name, None) for name in ("val/latent_std", "trainer/global_step")),
    ],
)
def test_each_number_has_its_better_side(name, expected):
    assert goal(name, ImageQuality.rising) == expected


def test_the_guard_alerts(trained, poisoned, tmp_path):
    poisoned(2)
    with pytest.raises(TrainingError):
        trained(*UNDRAWN, "data.size=600", "schedule.steps=25", "logger=wandb")
    (alert,) = of_kind(tmp_path / "run", "alert")
    assert (alert.title, alert.level) == ("run failed", "ERROR")
    assert alert.text.startswith("the loss or its gradient became non-finite at step")
    assert summary(tmp_path / "run")["exit"] == 1


class Online:
    """A run with a server that has the artifacts of one other run."""

    def __init__(self) -> None:
        self.offline, self.entity, self.project = False, "team", "p"
        self.config: dict = {}
        self.used: list[str] = []

    def use_artifact(self, name: str) -> None:
        if "model-a1" not in name:
            raise ValueError(f"artifact {name} not found")
        self.used.append(name)


def test_an_evaluation_is_linked_to_the_runs_that_made_its_models(tmp_path, capsys):
    for name, run_id, logger in (("one", "a1", {}), ("two", "b2", {"wandb": {"project": "q"}}), ("three", None, None)):
        (tmp_path / name).mkdir()
        write_record(tmp_path / name, RunRecord("complete", {"logger": logger}, wandb_id=run_id))
    run = Online()
    names = ("one/checkpoints/last.ckpt", "one/checkpoints/best_step_000004.ckpt", "two/checkpoints/last.ckpt")
    link_to_runs(run, [str(tmp_path / name) for name in (*names, "three/checkpoints/last.ckpt", "none/a.ckpt")])
    assert run.config["evaluates"] == [
        {"run": "a1", "checkpoint": "last.ckpt"},
        {"run": "a1", "checkpoint": "best_step_000004.ckpt"},
        {"run": "b2", "checkpoint": "last.ckpt"},
    ]
    assert run.used == ["team/p/model-a1:last", "team/p/model-a1:best"]
    assert "W&B has no artifact team/q/model-b2:last" in capsys.readouterr().out


@pytest.mark.slow
def test_models_are_artifacts_once_each_and_samples_a_table_with_classes(trained):
    """Offline they are stored for ``wandb sync``."""
    few = ["callbacks.final_samples.images=20", "callbacks.final_samples.steps=2", "callbacks.trajectory.steps=2"]
    words = [*TINY_UNET, *few, "conditional=true", "logger=wandb", "logger.wandb.log_model=true", "recipe=ddpm"]
    folder = trained(*words)
    artifacts = of_kind(folder, "artifact")
    models = {artifact.name: artifact for artifact in artifacts if artifact.type == "model"}
    run_id = read_record(folder).wandb_id
    assert list(models) == [f"model-{run_id}"]
    found = [
        (set(artifact.aliases), json.loads(artifact.metadata)) for artifact in artifacts if artifact.type == "model"
    ]
    assert [(aliases, more["original_filename"]) for aliases, more in found] == [
        ({"latest", "best"}, "best_step_000004.ckpt"),
        ({"latest", "last"}, "last.ckpt"),
    ]
    (file,) = folder.glob("wandb/offline-run-*/files/media/table/pictures/samples_table*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"] == ["index", "image", "class"]
    assert [row[2] for row in table["data"]] == [str(index % 10) for index in range(20)]
    (stored,) = [artifact for artifact in artifacts if artifact.type == "run_table"]
    assert sum(content.path.startswith("media/images/") for content in stored.manifest.contents) == 20


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["agent", "client"])
def test_a_job_that_wandbs_own_sweep_stops_counts_as_pruned(command, tmp_path, monkeypatch, signum):
    """The agent sends SIGTERM, W&B's client in the job SIGINT, when the server's hyperband gives a job up."""
    step = DiffusionModule.training_step

    def stopped(self, *args, **kwargs):
        if self.trainer.global_step == 2:
            os.kill(os.getpid(), signum)
        return step(self, *args, **kwargs)

    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "agent1")
    monkeypatch.setattr(DiffusionModule, "training_step", stopped)
    line = ["train.py", "sweep=wandb", "seed=3", *WITH_WANDB]
    status, out, err = command(*line)
    assert status == 0, err
    assert "given up by the search at step 3" in out
    (folder,) = (tmp_path / "outputs/sweeps/wandb").glob("*seed-3*")
    assert read_record(folder).status == "pruned"
    run = summary(folder)
    assert (run["summary"]["status"], run["exit"], run_record(folder).run_id) == ("pruned", 0, "agent1")
    assert "pruned by the search in an earlier command" in command(*line)[1]
