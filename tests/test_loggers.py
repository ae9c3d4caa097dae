"""Dashboards: everything arrives, nothing asks, nothing hangs, and jobs stay apart."""

import pytest
from wandb_records import summary

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
    assert {name.split(".")[0] for name in logged if name.startswith("animations/")} == {"animations/trajectory"}
    assert run["summary"]["val/loss"] == {"min": min(row["val/loss"] for row in run["history"] if "val/loss" in row)}
    assert set(run["summary"]["samples/wasserstein"]) == {"min"}
    assert isinstance(run["summary"]["train/learning_rate"], float)
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


def test_tensorboard_shows_numbers_and_pictures(trained):
    pytest.importorskip("tensorboard", reason="needs the tensorboard extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained(*SMALL, "logger=tensorboard")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {"train/loss", "val/loss"} <= set(events.Tags()["scalars"])
    assert {"pictures/trajectory", "pictures/samples"} <= set(events.Tags()["images"])
    (animation,) = events.Images("animations/trajectory")
    assert animation.encoded_image_string == (folder / "pictures/trajectory.gif").read_bytes()
    found = events.PluginTagToContent("hparams")
    assert b"optimizer/lr" in found["_hparams_/session_start_info"]
    assert [event.value for event in events.Scalars("hp_metric")][-1] == events.Scalars("val/loss")[-1].value
