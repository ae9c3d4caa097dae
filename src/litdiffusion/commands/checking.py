"""Trains an experiment and compares its metric with the value in its yaml."""

import time

from omegaconf import DictConfig, OmegaConf

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.record import read_record

FIELDS = ("metric", "value", "tolerance", "minutes", "hardware")


def check(cfg: DictConfig, run: Run) -> str:
    """Trains ``cfg`` to its end and returns one line that compares the metric with ``cfg.expected``.

    The metric may be worse than ``expected.value`` by at most ``expected.tolerance``.

    Raises:
        UserError: ``expected`` is missing or incomplete.
        TrainingError: the metric is worse, or training failed.
    """
    expected = _expected(cfg)
    cfg = OmegaConf.merge(cfg, {"metric": expected.metric})
    begin = time.perf_counter()
    value = train(cfg, run)
    minutes = (time.perf_counter() - begin) / 60
    if value is None:
        raise TrainingError(f"check failed: the run has no {expected.metric}")
    line = (
        f"{expected.metric} {value:.4g}, expected {expected.value:g} with a tolerance of {expected.tolerance:g}; "
        f"{minutes:.1f} minutes, {expected.minutes:g} on {expected.hardware}"
    )
    worse = expected.value - value if read_record(run.dir).better == "max" else value - expected.value
    if not worse <= expected.tolerance:
        raise TrainingError(f"check failed: {line}")
    return f"check passed: {line}"


def _expected(cfg: DictConfig) -> DictConfig:
    if cfg.expected is None:
        raise UserError("this run has no expected value; give experiment=NAME (litdiffusion check --help lists them)")
    missing = [name for name in FIELDS if OmegaConf.select(cfg.expected, name) is None]
    if missing:
        raise UserError(f"expected lacks {', '.join(missing)}; it needs {', '.join(FIELDS)}")
    return cfg.expected
