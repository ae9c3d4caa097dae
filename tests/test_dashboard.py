"""The workspace that scripts/dashboard.py writes names what runs log, and needs no server."""

import json
import re
import sys

import pytest

from litdiffusion.measure.quality import ImageQuality, VectorQuality
from litdiffusion.reports.workspace import HEADLINES


def test_the_workspace_has_the_panels_of_what_runs_log(command, tmp_path):
    pytest.importorskip("wandb_workspaces", reason="needs the dashboard extra")
    status, out, err = command("scripts/dashboard.py", "--entity", "team", "--project", "p")
    assert status == 0, err
    assert "workspace: workspace.json" in out
    view = json.loads((tmp_path / "workspace.json").read_text())
    assert (view["entity"], view["project"], view["displayName"]) == ("team", "p", "litdiffusion")
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Loss", "Quality", "Trajectories", "Samples", "Time"]
    configs = [panel["config"] for section in sections for panel in section["panels"]]
    lines = [config for config in configs if "xAxis" in config]
    assert {config["xAxis"] for config in lines} == {"trainer/global_step"}
    shown = {name for config in lines for name in config["metrics"]}
    assert {"val/loss", "val/loss_t_0_25", "train/loss_t_75_100", "quality/wasserstein_over_floor"} <= shown
    assert {"time/step_percent", "time/drawing_percent", "time/samples_per_second"} <= shown
    media = {key for config in configs for key in config.get("mediaKeys", ())}
    assert media == {"animations/trajectory", "pictures/trajectory", "pictures/samples"}
    assert "pictures/samples_table" in json.dumps(sections[3])
    assert ["val/loss.min"] in [config.get("metrics") for config in configs]


def test_the_headlines_are_those_of_the_metrics():
    assert (VectorQuality.headline, ImageQuality.headline) == HEADLINES


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--save"], "--save needs --entity"), ([], "needs the package wandb-workspaces .*pip install wandb-workspaces")],
)
def test_what_is_missing_is_one_line(words, message, command, monkeypatch):
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    status, _, err = command("scripts/dashboard.py", *words)
    assert status == 2
    assert err.count("\n") == 1
    assert re.search(message, err)
