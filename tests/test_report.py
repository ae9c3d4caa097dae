"""The page of a run: its numbers, its config, its safety, and that it never harms the run."""

import csv
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REPORTED, TINY, composed
from pages import Parsed, without_data
from PIL import Image

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.errors import TrainingError
from litdiffusion.measure.distances import Estimate
from litdiffusion.reports import quietly
from litdiffusion.reports.html.charts import HEIGHT, Curve, line_chart
from litdiffusion.reports.html.images import Room
from litdiffusion.reports.html.scales import scale_for, tick_text
from litdiffusion.reports.run import write_report
from litdiffusion.reports.table import write_csv
from litdiffusion.runs.record import read_record, write_record

PLAIN = (*TINY, "callbacks=none", "logger=none", "data.size=600", "schedule.steps=25")
"""A run of a tenth of a second, without log and pictures."""


@pytest.fixture
def copied(reported, tmp_path) -> Path:
    return Path(shutil.copytree(reported, tmp_path / "copied"))


@pytest.fixture(scope="module")
def page(reported) -> Parsed:
    return Parsed(reported / "report.html")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_numbers_of_the_page_are_those_of_the_log(reported, page):
    logged = [row for row in rows(reported) if row["val/loss"]]
    shown = page.table("steps")
    assert [int(row["steps"]) for row in shown] == [int(row["step"]) + 1 for row in logged] == [2, 4]
    for row, wanted in zip(shown, logged, strict=True):
        columns = row.keys() - {"steps"}
        assert {"val/loss", "val/loss_t_0_25", "quality/wasserstein_over_floor_spread"} <= columns
        for name in columns:
            assert float(row[name]) == pytest.approx(float(wanted[name]), rel=1e-5)


def test_the_head_names_the_main_number_with_its_spread_and_floor(reported, page):
    metrics = read_record(reported).metrics
    value, spread = (metrics[f"samples/wasserstein_over_floor{end}"] for end in ("", "_spread"))
    assert f"{value:.2f}"[:3] in page.text
    assert spread > 0
    assert "Wasserstein distance of samples from data" in page.text
    assert "× noise floor: 1 is as good as data" in page.text
    assert "MLP with 642 parameters, trained on Spiral (600 items of shape 2), 4 steps" in page.text
    assert "finished" in page.text
    assert f"items seen {4 * 512:,}" in page.text


def test_the_differences_from_the_defaults_are_the_overrides(page):
    table = page.table("key")
    assert {row["key"] for row in table} == {word.partition("=")[0] for word in REPORTED}
    found = {row["key"]: (row["value of this run"], row["default"]) for row in table}
    assert found["optimizer.lr"] == ("0.003", "0.001")
    assert found["callbacks.field"] == ("null", "Field")
    assert page.source.count('class="key typed"') == len(table)


def test_the_page_shows_every_picture_with_words_and_the_versions(reported, page):
    assert page.tags.count("img") == len(list((reported / "pictures").iterdir())) == 5
    assert 'alt=""' not in page.source
    assert page.tags.count("source") == 1  # the still of the animation
    for words in (
        "Wasserstein",
        "Good:",
        "torch",
        torch.__version__.partition("+")[0],
        "python",
        "optimizer",
        "litdiffusion train",
    ):
        assert words in page.text or words in page.source
    assert page.tags.count("svg") >= 4
    assert "From noise to data" in page.text


def test_the_page_is_one_file_without_references_to_others(reported, page):
    assert all(link.startswith(("data:", "#")) for link in page.links)
    plain = without_data(page.source)
    assert not [word for word in ("http", "//", "url(", "@import", "<script") if word in plain]
    assert (reported / "report.html").stat().st_size < 1e6


def test_texts_of_users_never_become_html(copied):
    hostile = "<script>alert(1)<"
    folder = copied.rename(copied.with_name(hostile))
    record = read_record(folder)
    config = {**record.config, "tags": ['"><img src=x onerror=1>'], "name": hostile}
    words = [*record.overrides, "name='<b>bold</b>'"]
    write_record(folder, replace(record, config=config, overrides=words, status="failed", error="<u>odd & even"))
    (folder / "pictures" / "<u>own.png").write_bytes((folder / "pictures" / "samples.png").read_bytes())
    page = Parsed(write_report(folder))
    assert {"script", "b", "u"}.isdisjoint(page.tags)
    assert hostile in page.text
    assert "Error: <u>odd & even" in page.text
    assert "own" in page.text


def test_secrets_are_masked_even_if_a_record_has_them(copied):
    record = read_record(copied)
    config = {**record.config, "logger": {"own": {"api_key": "abcdef123456"}}}
    write_record(
        copied,
        replace(record, config=config, overrides=["+logger.own.api_key=abcdef123456"], error="token=abcdef123456"),
    )
    page = write_report(copied).read_text()
    assert "abcdef123456" not in page
    assert "***" in page


def test_evaluations_in_the_folder_are_shown(copied):
    folder = copied / "checkpoints/evaluation_000"
    folder.mkdir(parents=True)
    write_csv(folder / "quality.csv", [{"sampler": "ddim", "calls": 10, "wasserstein": Estimate(1.234, 0.056, 200)}])
    page = Parsed(write_report(copied))
    assert page.table("sampler") == [{"sampler": "ddim", "calls": "10", "wasserstein": "1.234 ± 0.056"}]
    assert "Evaluation in checkpoints/evaluation_000" in page.text


def test_a_damaged_picture_is_named(copied):
    (copied / "pictures/samples.png").write_bytes(b"no picture")
    assert "Left out, because damaged or too large for this page: samples.png" in Parsed(write_report(copied)).text


def test_a_run_without_a_log_says_so(finished):
    page = Parsed(write_report(finished))
    assert "This run has no metrics.csv" in page.text
    assert "best val/loss" not in page.text
    assert f"{read_record(finished).metrics['val/loss']:.3g}" in page.text


def test_pictures_are_made_small_enough_or_left_out(tmp_path):
    torch.manual_seed(0)
    noise = [Image.fromarray(torch.randint(256, (240, 320, 3), dtype=torch.uint8).numpy()) for _ in range(4)]
    noise[0].save(tmp_path / "still.png")
    noise[0].save(tmp_path / "moving.gif", save_all=True, append_images=noise[1:])
    room = Room(160_000)
    still, moving = room.embed(tmp_path / "still.png"), room.embed(tmp_path / "moving.gif", width=160)
    assert (still.width, moving.width) == (320, 160)
    assert moving.still.startswith("data:image/webp")
    used = sum(3 * len(text) / 4 for image in (still, moving) for text in (image.source, image.still))
    assert 160_000 - room.left == pytest.approx(used, abs=4)
    assert Room(1000).embed(tmp_path / "still.png") is None


@pytest.mark.slow
def test_a_page_full_of_noise_stays_under_3_mb(copied):
    for k in range(12):
        noise = torch.randint(256, (1400, 1800, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(copied / f"pictures/condition_{k:02d}.png")
        Image.fromarray(noise).save(copied / f"pictures/own_{k:02d}.png")
    frames = [Image.fromarray(torch.randint(256, (700, 900, 3), dtype=torch.uint8).numpy()) for _ in range(26)]
    frames[0].save(copied / "pictures/trajectory.gif", save_all=True, append_images=frames[1:])
    assert write_report(copied).stat().st_size < 3e6


def test_a_failed_and_a_stopped_run_have_pages(tmp_path, poisoned):
    poisoned(1)
    with pytest.raises(TrainingError):
        train(composed(*PLAIN), Run(tmp_path / "failed", "failed"))
    page = Parsed(tmp_path / "failed/report.html")
    assert "failed" in page.text
    assert "Error: " in page.text
    record = read_record(tmp_path / "failed")
    for status, words in (("stopped", "stopped by a signal"), ("running", "interrupted: its process is gone")):
        write_record(tmp_path / "failed", replace(record, status=status, attempts=3))
        assert (
            f"{words}; the same command continues it, resumed 2 times" in Parsed(write_report(tmp_path / "failed")).text
        )


def test_a_page_that_cannot_be_written_costs_the_run_one_line(tmp_path, monkeypatch, capfd):
    def broken(folder):
        raise ZeroDivisionError("the reason")

    monkeypatch.setattr(quietly.write_quietly, "__defaults__", (broken,))
    assert math.isfinite(train(composed(*PLAIN), Run(tmp_path / "run", "run")))
    out, err = capfd.readouterr()
    assert "warning: no report.html in" in out
    assert "ZeroDivisionError: the reason" in out
    assert "Traceback" not in out + err
    assert read_record(tmp_path / "run").status == "complete"
    monkeypatch.undo()
    train(composed(*PLAIN), Run(tmp_path / "run", "run"))  # complete, but its page is missing
    assert (tmp_path / "run/report.html").is_file()


def test_the_page_can_be_switched_off(tmp_path):
    train(composed(*PLAIN, "report=false"), Run(tmp_path / "run", "run"))
    assert not (tmp_path / "run/report.html").exists()


def test_the_page_as_a_command(finished, tmp_path, command):
    status, out, err = command("scripts/report.py", str(finished))
    assert (status, err) == (0, "")
    assert f"report: {finished}/report.html (0.0 MB)" in out
    (tmp_path / "empty").mkdir()
    for folder, words in (("finishd", "does not exist; give a run (run.json)"), ("empty", "holds neither a run")):
        status, _, err = command("scripts/report.py", str(tmp_path / folder))
        assert (status, err.count("\n")) == (2, 1)
        assert words in err
        assert "finished" in err
    (finished / "run.json").write_text("{}")
    status, _, err = command("scripts/report.py", str(finished))
    assert (status, err.count("\n")) == (2, 1)
    assert "is not the record of a run" in err


def test_the_level_and_all_points_lie_inside_a_chart():
    points = [(100, 7.8, 0.6), (200, 9.0, 20.0), (300, math.nan, None)]
    chart = line_chart([Curve("far", points, "c0")], "title", "", level=(1.0, "like data"))
    places = [float(y) for y in re.findall(r' (?:cy|y1|y2)="([\d.-]+)"', chart.svg)]
    assert 'class="level"' in chart.svg
    assert all(0 <= y <= HEIGHT for y in places)
    assert line_chart([Curve("empty", points[2:], "c0")], "title", "") is None


@pytest.mark.parametrize(
    ("values", "log", "ticks"),
    [
        ([0.0, 10.0], None, ["0", "5", "10"]),
        ([1.0, 1000.0], True, ["1", "10", "100", "1000"]),
        ([0.5, 0.5], None, None),
        ([-3.0, -3.0], None, None),
        ([1e-7, 3e-7], None, None),
        ([1e-9, 1e9], True, None),
        ([0.97, 1.02], True, None),
    ],
)
def test_axes_hold_their_values_and_have_round_ticks(values, log, ticks):
    scale = scale_for(values, 0, 100, log)
    assert scale.log is bool(log)
    places = [scale(value) for value in values]
    assert all(0 <= place <= 100 for place in places)
    assert places[0] < places[1] or values[0] == values[1]
    found = scale.ticks()
    assert 2 <= len(found) <= 8
    assert all(scale.low <= tick <= scale.high for tick in found)
    if ticks is not None:
        assert [tick_text(tick) for tick in found] == ticks
