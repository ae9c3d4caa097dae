"""Reports on checkpoints: every row is a direct computation, nothing stops a report, tables and pictures read right."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONF, TINY, TINY_UNET, UNMEASURED, composed
from test_cli import one_error
from wandb_records import summary

from litdiffusion import plots
from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.data import Digits, GaussianMixture
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.samplers import DDIM
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.measure.distances import Estimate
from litdiffusion.measure.features import ClassifierFeatures
from litdiffusion.measure.quality import ImageQuality, VectorQuality
from litdiffusion.plots import Curve, curves, pairs_picture, quality_picture
from litdiffusion.plots.sheets import MARGIN
from litdiffusion.pretrained import Pretrained
from litdiffusion.reports.accuracy import accuracy_numbers
from litdiffusion.reports.quality import _curves
from litdiffusion.reports.subjects import Subject, names
from litdiffusion.reports.table import format_cell, text_table, write_csv

QUIET = [*TINY, *UNMEASURED, "callbacks.trajectory=null", "callbacks.forward_process=null", "callbacks.field=null"]
QUIET += ["callbacks.final_samples=null", "callbacks.progress_bar=null", "trainer.enable_progress_bar=false"]
POINTS = ["data=gaussian_mixture", "model.hidden=8", "model.layers=1", "schedule.steps=25", "data.size=1000"]
POINTS += ["data.val_size=200", "data.batch_size=200", "metrics.distances=[wasserstein]", "optimizer.lr=0.05"]
N = 200


def trained_in(folder: Path, *overrides: str) -> Path:
    train(composed(*QUIET, *overrides), Run(folder))
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    """Two runs on the same data, of two seeds of the weights' noise."""
    root = tmp_path_factory.mktemp("runs")
    return [trained_in(root / name, *POINTS, f"lr_schedule.warmup_steps={k}") for k, name in enumerate(("a", "b"))]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A tiny conditional model of digits, and a classifier trained for a few steps."""
    root = tmp_path_factory.mktemp("digits")
    metrics = [f"metrics.cache={root}", "+metrics.features.steps=40", "metrics.reference=300"]
    return trained_in(root / "run", *TINY_UNET, *metrics, "conditional=true", "schedule.steps=25")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "quality.csv").open() as file:
        return list(csv.DictReader(file))


def evaluate(command, tmp_path: Path, ckpts: list[Path] | Path, *args: str) -> tuple[list[dict[str, str]], str]:
    """The rows of quality.csv and what the script printed."""
    one = ckpts if isinstance(ckpts, Path) else "[" + ",".join(map(str, ckpts)) + "]"
    given = [f"ckpt={one}", f"out={tmp_path}/report", f"n={N}", "device=cpu"]
    keys = {arg.split("=")[0] for arg in args}
    status, out, err = command("scripts/evaluate.py", *(x for x in given if x.split("=")[0] not in keys), *args)
    assert status == 0, err
    return table(tmp_path / "report"), out


def test_missing_weights_of_inception_are_known_before_samples_are_drawn(digits, command, tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    status, _, err = command("scripts/evaluate.py", f"ckpt={digits}", "metrics=fid", "n=1000000000", "device=cpu")
    assert "Inception features need the weights" in one_error(status, err)


def test_rows_are_checkpoints_by_weights_by_samplers_by_steps(checkpoints, command, tmp_path):
    choice = ["samplers=[own,ddim,heun]", "steps=[5,10]", "weights=[ema,raw]"]
    rows, out = evaluate(command, tmp_path, checkpoints, *choice)
    own, rivals = rows[:-3], rows[-3:]
    found = [(row["checkpoint"], row["weights"], row["sampler"], row["calls"]) for row in own]
    walks = [("own (Ancestral)", 5), ("own (Ancestral)", 10), ("ddim", 5), ("ddim", 10)]
    walks += [("heun", 9), ("heun", 19)]
    expected = [(c, w, s, str(k)) for c in ("a/last", "b/last") for w in ("ema", "raw") for s, k in walks]
    assert found == expected
    assert [row["checkpoint"] for row in rivals] == ["data", "kernel density", "gaussian mixture"]
    assert float(rivals[0]["wasserstein_over_floor"]) == 1
    assert {"wasserstein", "wasserstein_spread", "wasserstein_n", "mode_error", "seconds", "n"} <= rows[0].keys()
    assert all(row["n"] == row["wasserstein_n"] == str(N) for row in own)
    values = [row["wasserstein"] for row in own]
    assert len(set(values)) == len(values)
    for name in ("quality.csv", "quality.png", "samples.png"):
        assert (tmp_path / "report" / name).is_file()
    lines = out.splitlines()
    header = next(k for k, line in enumerate(lines) if line.startswith("checkpoint "))
    assert len(lines[header + 1 : header + 1 + len(rows)]) == 27
    assert lines[header + 1].startswith("a/last")
    assert "noise floor" in lines[header + 1 + len(rows)]


def test_own_is_measured_with_its_own_steps_too_unless_steps_are_given(checkpoints, command, tmp_path):
    """The run's chain has 25 levels, which are not measured twice."""
    for folder, words, calls in (("null", [], ["25", "10"]), ("given", ["steps=5"], ["5"])):
        options = ["samplers=own", f"out={tmp_path}/{folder}", *words]
        status, _, err = command("scripts/evaluate.py", f"ckpt={checkpoints[0]}", f"n={N}", "device=cpu", *options)
        assert status == 0, err
        assert [row["calls"] for row in table(tmp_path / folder)[:-3]] == calls


def test_a_row_is_a_direct_computation(checkpoints, command, tmp_path):
    """Own blocks of 150 samples, own quality object, the raw weights."""
    options = ["samplers=ddim", "steps=5", "weights=raw", "batch_size=150", "seed=3", "sets=2"]
    (row, *_), _ = evaluate(command, tmp_path, checkpoints[0], *options)
    pretrained, parts = Pretrained(checkpoints[0], "raw"), []
    for block in range(3):
        noise = seeded_noise(fold_seed(fold_seed(3, "evaluation"), "block", block))
        x = pretrained.denoiser.schedule.prior_std * noise(torch.empty(150, 1))
        parts.append(DDIM(steps=5).sample(pretrained.denoiser, x, noise=noise))
    data = GaussianMixture(batch_size=200, val_size=200, size=1000, seed=0)
    data.load()
    measured = VectorQuality(["wasserstein"]).attach(data).measure(torch.cat(parts)[: 2 * N], n=N)
    for name, estimate in measured.items():
        assert float(row[name]) == pytest.approx(estimate.value, rel=1e-6), name
        assert float(row[f"{name}_spread"]) == pytest.approx(estimate.spread, rel=1e-5), name


@pytest.mark.parametrize("samplers", ["[own,ddim]", "ddim"])
def test_samples_that_are_not_finite_are_named_and_not_measured(samplers, checkpoints, command, tmp_path, monkeypatch):
    """One sampler diverges: its row stays empty, the others are measured; also where it is the only one."""
    monkeypatch.setattr(DDIM, "step", lambda self, x, *_: x * float("nan"))
    options = [f"samplers={samplers}", "steps=5", "wandb=true"]
    rows, out = evaluate(command, tmp_path, checkpoints[0], *options)
    by_name = {row["sampler"]: row for row in rows}
    assert by_name["ddim"]["wasserstein"] == ""
    (line,) = [line for line in out.splitlines() if "samples are not finite and are not measured" in line]
    assert "ddim, 5 calls" in line
    assert len([row for row in rows[:-3] if row["wasserstein"]]) == (1 if "own" in samplers else 0)
    assert (tmp_path / "report" / "quality.png").is_file()


def test_bad_choices_are_one_line(checkpoints, command):
    ckpt = f"ckpt={checkpoints[0]}"
    for arguments, message in (
        ([ckpt, "samplers=[own,hein]"], "samplers=hein is not known; did you mean heun? (known: own, ancestral"),
        ([ckpt, "weights=[ema,rw]"], "weights must be among ema, raw, got 'rw'"),
        ([ckpt, "steps=[5,2.5]"], "steps must be whole numbers of at least 1, got 2.5"),
        ([ckpt, "n=10"], "n must be a whole number of at least 20, got 10"),
        ([], "give a checkpoint"),
        (["ckpt=nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
    ):
        status, _, err = command("scripts/evaluate.py", *arguments)
        assert message in one_error(status, err)


def test_a_sampler_that_does_not_fit_is_left_out(checkpoints, command, tmp_path):
    """The adaptive solver asks between the levels of a chain, whose net knows none there; a chain has 25 levels."""
    options = ["samplers=[ode,ddim]", "steps=[5,500]"]
    rows, out = evaluate(command, tmp_path, checkpoints[0], *options)
    assert "sampler=ode does not fit this process" in out
    assert [row["calls"] for row in rows[:-3]] == ["5"]
    status, _, err = command("scripts/evaluate.py", f"ckpt={checkpoints[0]}", "samplers=ode")
    assert "no sampler of samplers=[...] fits" in err
    assert status == 2


def test_an_earlier_report_is_not_overwritten(checkpoints, command, tmp_path):
    evaluate(command, tmp_path, checkpoints[0], "samplers=ddim", "steps=5")
    options = [f"ckpt={checkpoints[0]}", f"out={tmp_path}/report", "samplers=ddim"]
    status, _, err = command("scripts/evaluate.py", *options)
    assert "already holds evaluation" in one_error(status, err)


def test_wandb_holds_the_table_the_pictures_and_the_config(checkpoints, command, tmp_path):
    rows, _ = evaluate(command, tmp_path, checkpoints[0], "samplers=ddim", "steps=[5,10]", "wandb=true")
    run = summary(tmp_path / "report")
    assert (run["job"], run["exit"]) == ("evaluate", 0)
    assert run["config"]["steps"] == [5, 10]
    logged = {key.split(".")[0] for row in run["history"] for key in row}
    assert {"quality", "pictures/quality", "pictures/samples"} <= logged
    (file,) = (tmp_path / "report").glob("wandb/offline-run-*/files/media/table/quality*.table.json")
    content = json.loads(file.read_text())
    place = content["columns"].index("wasserstein_over_floor")
    found = [line[place] for line in content["data"]]
    assert found == pytest.approx([float(row["wasserstein_over_floor"]) for row in rows])


def test_a_conditional_model_is_scored_by_what_its_samples_teach(digits, command, tmp_path):
    options = ["samplers=ddim", "steps=3", "n=60", "accuracy=true", "batch_size=30"]
    rows, out = evaluate(command, tmp_path, digits, *options)
    row = rows[0]
    assert 0 <= float(row["accuracy"]) < 0.4 < float(row["real_accuracy"]) <= 1
    assert row["accuracy_n"] == "60"
    assert 0 <= float(row["class_accuracy"]) <= 1
    assert float(row["copies"]) == 0
    assert "a classifier trained on 60 samples only is right on" in out
    assert "copying check" in out
    assert (tmp_path / "report" / "nearest.png").is_file()


def test_diverged_images_are_not_scored_either(digits, command, tmp_path, monkeypatch):
    monkeypatch.setattr(DDIM, "step", lambda self, x, *_: x * float("nan"))
    rows, out = evaluate(command, tmp_path, digits, "samplers=ddim", "steps=3", "n=20", "accuracy=true", "clip=false")
    assert rows[0].get("frechet", "") == rows[0].get("accuracy", "") == ""
    assert "not finite" in out


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageQuality:
    data, cache = Digits(batch_size=64, seed=0), str(tmp_path_factory.mktemp("metrics"))
    data.load()
    return ImageQuality(ClassifierFeatures(cache=cache, steps=100), cache, reference=300).attach(data)


def test_accuracy_of_data_in_the_place_of_samples_is_that_of_data(images, capsys):
    """Training images score as themselves; those without labels by what the metrics' classifier sees in them."""
    data, subject = images.data, Subject("", "", "ema", None, images)
    real, class_labels = data.training_reference(128), data.train.class_label[:128]
    right = accuracy_numbers(subject, real, class_labels)
    assert right["accuracy"] == right["real_accuracy"]
    assert right["accuracy"].value > 0.5
    seen = accuracy_numbers(subject, real, None)
    assert seen.keys() == {"pseudo_accuracy", "real_accuracy"}
    assert seen["real_accuracy"] == right["real_accuracy"]
    assert seen["pseudo_accuracy"].value > 0.4
    assert "predicted by the metrics' classifier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (7, "7"),
        ("ddim", "ddim"),
        (0.123456, "0.123"),
        (1234.5678, "1235"),
        (Estimate(1.2345, 0.0567, 9), "1.234 ± 0.057"),
        (Estimate(0.5, 0.0, 9), "0.50 ± 0.00"),
        (Estimate(123.4, 5.6, 9), "123.4 ± 5.6"),
        (Estimate(1234.5, 67.8, 9), "1234 ± 68"),
        (Estimate(0.0, 0.0, 9), "0.0 ± 0.0"),
        (Estimate(-0.00123, 0.00045, 9), "-0.00123 ± 0.00045"),
    ],
)
def test_numbers_are_rounded_to_what_their_spread_carries(cell, text):
    assert format_cell(cell) == text


def test_tables_are_aligned_text_to_the_left_and_numbers_to_the_right():
    rows = [{"name": "a", "calls": 5, "x": Estimate(1.5, 0.25, 3)}, {"name": "longer", "calls": 100}]
    assert text_table(rows, ["name", "calls", "x"]).splitlines() == [
        "name    calls            x",
        "a           5  1.50 ± 0.25",
        "longer    100",
    ]


def test_csv_gives_an_estimate_three_columns_and_keeps_all_digits(tmp_path):
    write_csv(tmp_path / "t.csv", [{"name": "a", "x": Estimate(1 / 3, 0.25, 3)}, {"name": "b", "y": 2}])
    with (tmp_path / "t.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {"name": "a", "x": str(1 / 3), "x_spread": "0.25", "x_n": "3", "y": ""}
    assert (second["x"], second["y"]) == ("", "2")


def test_checkpoints_are_named_by_the_folders_that_tell_them_apart():
    assert names(["runs/a/checkpoints/last.ckpt", "runs/b/checkpoints/last.ckpt"]) == ["a/last", "b/last"]
    assert names(["a/checkpoints/last.ckpt", "a/checkpoints/best.ckpt"]) == ["a/last", "a/best"]
    assert len(set(names([f"{k}/x/checkpoints/last.ckpt" for k in range(3)]))) == 3
    assert names(["a/checkpoints/last.ckpt"] * 2) == ["a/last"] * 2


def test_curves_group_rows_in_the_order_of_calls():
    def row(sampler: str, calls: int | None, value: float, checkpoint: str = "a") -> dict:
        cells = {"checkpoint": checkpoint, "weights": "ema", "sampler": sampler, "calls": calls}
        return cells | {"x": Estimate(value, 0.1, 5)}

    rows = [row("ddim", 50, 1.0), row("ddim", 10, 2.0), row("ode", None, 3.0)]
    rows.append({"checkpoint": "a", "weights": "ema", "sampler": "heun", "calls": 9})
    assert _curves(rows, "x") == [Curve("ddim", [(10, 2.0, 0.1), (50, 1.0, 0.1)])]
    both = _curves([row("ddim", 10, 2.0), row("ddim", 10, 4.0, "b")], "x")
    assert [curve.name for curve in both] == ["ddim, a ema", "ddim, b ema"]


def test_a_curve_runs_through_its_points_and_levels_lie_across(monkeypatch):
    """The pixel at each point has the curve's colour; both axes are logarithmic, so the middle is a geometric mean."""
    drawn, honest = [], curves.rendered
    monkeypatch.setattr(curves, "rendered", lambda figure: drawn.append(figure) or honest(figure))
    points = [(10, 4.0, 0.1), (40, 1.0, 0.1)]
    pixels = np.asarray(quality_picture([Curve("ddim", points), Curve("none", [])], {"data": 3.0}, "x_y"))
    axes = drawn[0].axes[0]

    def pixel(x: float, y: float) -> list[int]:
        column, row = axes.transData.transform((x, y))
        return pixels[pixels.shape[0] - 1 - int(row), int(column)].tolist()

    for x, y in ((10, 4.0), (20, 2.0), (40, 1.0)):
        assert pixel(x, y) == pytest.approx(plots.palette.ACCENT, abs=12), (x, y)
    assert axes.get_ylabel() == "x y"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ddim"]
    level = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert set(level.get_ydata()) == {3.0}


@pytest.mark.parametrize("count", [3, 4, 7])
def test_each_image_stands_above_the_one_that_belongs_to_it(count):
    """Flat tiles in rows of 4: shades of 0..count-1 above, of their partners 100 higher below."""
    upper = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).float()
    sheet = pairs_picture(upper, upper + 100, "", (0.0, 255.0), columns=4)
    columns, rows = min(count, 4), 2 * -(-count // 4)
    pixels = np.asarray(sheet)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    pitch_y, pitch_x = (pixels.shape[0] + 2) / rows, (pixels.shape[1] + 2) / columns
    for k in range(count):
        for below in (0, 1):
            y, x = (2 * (k // 4) + below + 0.5) * pitch_y, (k % 4 + 0.5) * pitch_x
            assert pixels[int(y), int(x)].tolist() == [k + 100 * below] * 3


def test_every_sampler_of_the_group_can_be_asked_for():
    known = {path.stem for path in (CONF / "sampler").glob("*.yaml")}
    assert set(composed(config_name="evaluate").samplers) - {"own"} <= known
