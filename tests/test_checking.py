"""Experiments with a checked number: each states one that its run has, and the check passes and fails rightly."""

import math
import numbers
from pathlib import Path

import pytest
from conftest import CONF, NOT_RUN, QUIET, TINY, composed
from test_cli import one_error
from test_live import ALONE, SMALL, UNLIKELY, scripted

from litdiffusion.build import Run
from litdiffusion.commands.checking import FIELDS, check
from litdiffusion.config.make import make
from litdiffusion.config.metrics import check_metric, make_quality
from litdiffusion.data import DataModule
from litdiffusion.errors import TrainingError, UserError

EXPERIMENTS = sorted({path.stem for path in (CONF / "experiment").glob("*.yaml")} - NOT_RUN)
PLAIN = [*TINY, *SMALL, *QUIET, "trainer.enable_progress_bar=false", "logger=none"]


def expected(metric: str = "val/loss", value: float = 1.0, tolerance: float = 0.1) -> str:
    return f"expected={{metric: {metric}, value: {value}, tolerance: {tolerance}, minutes: 1, hardware: two cores}}"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_expects_a_number_that_its_run_has(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LITDIFFUSION_DATA", str(tmp_path))
    cfg = composed(f"experiment={name}")
    assert cfg.expected is not None, "an expected: block is missing"
    assert set(cfg.expected) == set(FIELDS)
    assert cfg.expected.tolerance > 0
    assert cfg.expected.minutes > 0
    assert isinstance(cfg.expected.value, numbers.Real)
    assert len(cfg.expected.hardware) > 3
    cfg.metric = cfg.expected.metric
    data: DataModule = make(cfg.data, "data")
    check_metric(cfg, make_quality(cfg, data))
    if len(data.shape) == 1:  # a loss says little of samples, and those of points are cheap to measure
        assert cfg.expected.metric.startswith(("samples/", "quality/"))


@pytest.mark.parametrize("name", sorted(NOT_RUN))
def test_an_experiment_that_was_not_run_states_no_number(name, tmp_path):
    assert "was measured" in (CONF / "experiment" / f"{name}.yaml").read_text()
    with pytest.raises(UserError, match="no expected value"):
        check(composed(f"experiment={name}"), Run(tmp_path))


def checked(folder: Path, *overrides: str) -> str:
    return check(composed(*overrides), Run(folder))


def measured(folder: Path) -> float:
    """The validation loss of the tiny run."""
    return float(checked(folder, *PLAIN, expected(value=1e9)).split("val/loss ")[1].split(",")[0])


def test_a_number_may_be_worse_by_the_tolerance_and_no_more(tmp_path):
    """The same run each time: its number against a bound just above it, one far above, and one just below."""
    value = measured(tmp_path / "first")
    for k, target in enumerate((value - 0.09, value + 100)):
        line = checked(tmp_path / f"pass{k}", *PLAIN, expected(value=target))
        assert line.startswith(f"check passed: val/loss {value:.4g}, expected {target:g} with a tolerance of 0.1;")
        assert line.endswith("1 on two cores")
    with pytest.raises(TrainingError, match=rf"check failed: val/loss {value:.4g}, expected"):
        checked(tmp_path / "fail", *PLAIN, expected(value=value - 0.11))


def test_a_rising_number_fails_from_below(tmp_path):
    """A score of 2 where more is better: 2.05 within 0.1 passes, 2.2 does not."""
    options = scripted(1.0, 2.0)
    line = checked(tmp_path / "pass", *options, expected("quality/score", 2.05))
    assert line.startswith("check passed: quality/score 2,")
    assert checked(tmp_path / "better", *options, expected("quality/score", -7)).startswith("check passed")
    with pytest.raises(TrainingError, match=r"check failed: quality/score 2, expected 2\.2"):
        checked(tmp_path / "fail", *options, expected("quality/score", 2.2))


def test_a_number_that_is_not_one_fails(tmp_path):
    with pytest.raises(TrainingError, match="check failed: quality/loss nan"):
        checked(tmp_path, *scripted(1.0, math.nan), expected("quality/loss", 1e9))


def test_the_number_of_the_final_samples_can_be_checked(tmp_path):
    final = [option for option in ALONE if "final_samples" not in option]
    options = [*TINY, *SMALL, *final, UNLIKELY, "callbacks.live_quality=null", "callbacks.final_samples.points=200"]
    line = checked(tmp_path, *options, expected("samples/wasserstein_over_floor", 1e9))
    assert line.startswith("check passed: samples/wasserstein_over_floor ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "this run has no expected value; give experiment=NAME"),
        (["expected={metric: val/loss, value: 1, minutes: 2}"], "expected lacks tolerance, hardware; it needs metric"),
        ([expected("quality/wassserstein")], "metric must be one of val/loss"),
    ],
)
def test_an_incomplete_statement_is_refused(overrides, message, tmp_path):
    with pytest.raises(UserError, match=message):
        checked(tmp_path, *PLAIN, *overrides)


@pytest.mark.parametrize(("value", "status"), [(1e9, 0), (-1e9, 1)])
def test_the_script_says_pass_or_fail_by_its_status(value, status, command):
    found, out, err = command("scripts/check.py", *PLAIN, expected(value=value))
    assert found == status, err
    if status == 0:
        assert out.splitlines()[-1].startswith("check passed: val/loss ")
    else:
        (line,) = [line for line in err.splitlines() if line.strip()]
        assert line.startswith("error: check failed: val/loss ")


def test_the_script_refuses_a_run_without_a_number(command):
    status, _, err = command("scripts/check.py", *PLAIN)
    assert "has no expected value" in one_error(status, err)
