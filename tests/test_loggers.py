"""Dashboards: everything arrives, nothing asks, nothing hangs, and jobs stay apart."""

import socket

import pytest
from wandb_records import summary

from litdiffusion.errors import UserError
from litdiffusion.runs.dashboards import wandb_logger

SMALL = ["data.size=600", "schedule.steps=25", "callbacks.final_samples.points=100", "callbacks.trajectory.points=50"]


def test_wandb_holds_config_metrics_axes_and_pictures(trained):
    run = summary(trained(*SMALL, "logger=wandb", "optimizer.lr=0.002"))
    assert run["config"]["optimizer"]["lr"] == 0.002
    assert run["config"]["model"]["_target_"] == "litdiffusion.nets.MLP"
    axes = dict(run["metrics"])
    assert {"train/*", "val/*", "time/*", "samples/*", "pictures/*"} <= axes.keys()
    assert all(axis == "trainer/global_step" for name, axis in axes.items() if name.endswith("*"))
    logged = {key for row in run["history"] for key in row}
    assert {"train/loss", "train/learning_rate", "val/loss", "val/loss_t_0_25"} <= logged
    assert {"time/samples_per_second", "samples/wasserstein", "trainer/global_step"} <= logged
    pictures = [key for key in logged if key.startswith("pictures/")]
    assert {key.split(".")[0] for key in pictures} >= {
        "pictures/trajectory",
        "pictures/forward_process",
        "pictures/samples",
    }
    assert run["exit"] == 0


def test_a_multiruns_jobs_are_finished_runs_of_one_group(command, tmp_path):
    overrides = ["trainer.max_steps=2", "trainer.accelerator=cpu", "callbacks=none", "logger=wandb", *SMALL[:2]]
    status, _, err = command("train.py", "-m", "seed=1,2", *overrides, "trainer.enable_progress_bar=false")
    assert status == 0, err
    runs = [summary(folder.parent) for folder in sorted(tmp_path.rglob("wandb")) if (folder / "latest-run").exists()]
    assert len(runs) == 2
    assert [run["config"]["seed"] for run in runs] == [1, 2]
    assert len({run["group"] for run in runs}) == 1
    assert runs[0]["group"]
    assert [("seed=1" in run["name"], "seed=2" in run["name"]) for run in runs] == [(True, False), (False, True)]
    assert [run["exit"] for run in runs] == [0, 0]


def test_auto_goes_offline_without_a_key(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr("litdiffusion.runs.dashboards._has_key", lambda: False)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    logger = wandb_logger(tmp_path, "run")
    assert logger._wandb_init["mode"] == "offline"
    assert "wandb sync" in capsys.readouterr().out


def test_auto_goes_offline_with_a_key_but_no_network(tmp_path, monkeypatch):
    def refuse(*_, timeout, **__):
        assert timeout <= 2
        raise OSError("no network")

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr("litdiffusion.runs.dashboards._has_key", lambda: True)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert wandb_logger(tmp_path, "run")._wandb_init["mode"] == "offline"


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(UserError, match="must be one of auto, online, offline, disabled, got 'off'"):
        wandb_logger(tmp_path, "run", mode="off")


def test_tensorboard_shows_numbers_and_pictures(trained):
    pytest.importorskip("tensorboard", reason="needs the tensorboard extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained(*SMALL, "logger=tensorboard") / "tensorboard"))
    events.Reload()
    assert {"train/loss", "val/loss"} <= set(events.Tags()["scalars"])
    assert {"pictures/trajectory", "pictures/samples"} <= set(events.Tags()["images"])
