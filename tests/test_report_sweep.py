"""The page of a sweep: one row for each job in whatever state, curves, coordinates, samples."""

import csv
from pathlib import Path

import pytest
from conftest import SMALL_JOB
from pages import Parsed, without_data
from PIL import Image

from litdiffusion.runs.record import RunRecord, write_record
from litdiffusion.sweeps.page import write_sweep_report

METRIC = "samples/wasserstein_over_floor"


def job(folder: Path, name: str, status: str, value: float | None, error: str | None = None) -> None:
    """A job's folder as training leaves it: a record, a log, samples."""
    path = folder / name
    (path / "pictures").mkdir(parents=True)
    metrics = {} if value is None else {METRIC: value, f"{METRIC}_spread": 0.05, "val/loss": value / 2}
    words = [word.replace("-", "=", 1) for word in name.split("_")] + ["trainer.max_steps=5"]
    record = RunRecord(status, {"metric": METRIC}, words, metrics, minutes=1.5, attempts=1, step=5, error=error)
    write_record(path, record)
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["step", "val/loss"], [1, 0.9], [4, value or 0.8]])
    if value is not None:
        Image.new("RGB", (600, 200), (90, 120, 200)).save(path / "pictures/samples.png")


@pytest.fixture
def sweep(tmp_path) -> Path:
    folder = tmp_path / "my sweep"
    job(folder, "lr-0.01_net-a", "complete", 1.5)
    job(folder, "lr-0.1_net-a", "complete", 1.25)
    job(folder, "lr-0.01_net-b", "failed", None, "the loss became non-finite <at> step 3")
    job(folder, "lr-0.1_net-b", "pruned", None)
    return folder


def test_every_job_has_a_row_with_what_differs_and_its_result(sweep):
    (sweep / "lr-0.1_net-a/report.html").write_text("its own page")
    page = Parsed(write_sweep_report(sweep))
    table = page.table("job")
    assert [row["lr"] for row in table] == ["0.1", "0.01", "0.01", "0.1"]
    assert [row["status"] for row in table] == ["finished", "finished", "failed", "pruned by the search"]
    assert [row[METRIC] for row in table] == ["1.250 ± 0.050", "1.500 ± 0.050", "", ""]
    assert [row["val/loss"] for row in table] == ["0.625", "0.75", "", ""]
    assert "trainer.max_steps" not in table[0]
    assert [row["job"].endswith("(best)") for row in table] == [True, False, False, False]
    assert [link for link in page.links if link.endswith(".html")] == ["lr-0.1_net-a/report.html"]
    (errors,) = [rows for rows in page.tables if rows[0][-1] == "what happened"]
    assert errors[1][1:] == ["failed", "the loss became non-finite <at> step 3"]
    assert "3 of 4 jobs done" in page.text
    assert "4 jobs that differ in lr, net." in page.text


def test_the_page_shows_curves_coordinates_and_samples(sweep):
    page = Parsed(write_sweep_report(sweep))
    assert page.source.count('class="jobline') == 2
    assert page.source.count('class="jobline best"') == 1
    assert page.tags.count("img") == 2
    legend = page.source.partition('<ul class="legend">')[2].partition("</ul>")[0]
    assert legend.count("<li") == 4
    plain = without_data(page.source)
    assert not [word for word in ("http", "//", "url(", "@import") if word in plain]
    assert all(link.startswith(("data:", "#")) for link in page.links)


def test_a_damaged_record_and_a_job_alone_have_pages(tmp_path):
    job(tmp_path / "s", "lr-0.1", "complete", 1.5)
    assert "1 of 1 jobs done" in Parsed(write_sweep_report(tmp_path / "s")).text
    job(tmp_path / "s", "lr-0.2", "complete", 1.25)
    (tmp_path / "s/lr-0.2/run.json").write_text("[]")
    page = Parsed(write_sweep_report(tmp_path / "s"))
    assert [row["status"] for row in page.table("job")] == [
        "finished",
        "its run.json is damaged",
    ]
    assert "is not the record of a run" in page.text


def test_twenty_jobs_have_eight_colours(tmp_path):
    for k in range(20):
        job(tmp_path, f"lr-{k + 1}", "complete", 2.0 - k / 20)
    page = Parsed(write_sweep_report(tmp_path))
    legend = page.source.partition('<ul class="legend">')[2].partition("</ul>")[0]
    assert legend.count("<li") == 8
    assert len(page.table("job")) == 20


def test_a_sweep_ends_with_its_page_and_those_of_its_jobs(command, tmp_path):
    line = ("train.py", "-m", "sweep=s", *SMALL_JOB, "trainer.max_steps=1", "optimizer.lr=3e-3,2e-3")
    status, out, err = command(*line)
    assert status == 0, err
    assert "warning" not in out + err
    pages = sorted(path.parent for path in (tmp_path / "outputs").rglob("report.html"))
    assert len(pages) == 3
    assert [row["optimizer.lr"] for row in Parsed(pages[0] / "report.html").table("job")] != []
    own = Parsed(pages[1] / "report.html").table("key")
    assert {"optimizer.lr", "trainer.max_steps"} <= {row["key"] for row in own}
    status, out, err = command("scripts/report.py", str(tmp_path / "outputs/sweeps/s"))
    assert status == 0, err
