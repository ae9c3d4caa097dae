"""Fixtures shared by all tests: composed configs, tiny runs, and the command line in this process."""

import copy
import gc
import io
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from litdiffusion.build import Experiment, Run, build
from litdiffusion.commands.training import train
from litdiffusion.config.composition import default_config
from litdiffusion.config.paths import CONF
from litdiffusion.data import Digits
from litdiffusion.diffusion.objectives import DenoisingObjective

ROOT = Path(__file__).parent.parent
QUIET = ["callbacks=none", "logger=none", "trainer.enable_checkpointing=false"]
TINY_UNET = ["model=unet", "data=digits", "model.channels=[8]", "model.blocks=1", "data.batch_size=8"]
UNMEASURED = ["callbacks.live_quality=null", "callbacks.live_likelihood=null"]
NOT_RUN = {"cifar10"}
"""Experiments for a GPU, whose number was not measured yet: they have no `expected`, and say so in their header."""
TINY = [
    "trainer.max_steps=4",
    "trainer.val_check_interval=4",
    "trainer.log_every_n_steps=2",
    "trainer.accelerator=cpu",
    "lr_schedule.warmup_steps=0",
]
FEW_STATES = ["callbacks.trajectory.shown=3"]  # matplotlib draws each state on a sheet and in a frame
SMALL_JOB = [
    *TINY,
    "callbacks=none",
    "logger=none",
    "data.size=600",
    "trainer.enable_progress_bar=false",
    "schedule.steps=50",
]
UNDRAWN = [f"callbacks.{name}=null" for name in ("trajectory", "field", "forward_process", "final_samples")]
VALUE = re.compile(r"(?!hydra)([\w.]+)=")
"""An override that may set a value: not one that adds or deletes, and none of Hydra's."""
BARE_RUN = [*TINY, *UNMEASURED, *UNDRAWN, "callbacks.progress_bar=null", "logger=none"]
REPORTED = (
    *TINY,
    *FEW_STATES,
    *("callbacks.progress_bar=null", "callbacks.live_likelihood=null", "callbacks.field=null"),
    *("trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "model.hidden=16", "schedule.steps=25"),
    *("data.size=600", "callbacks.live_quality.samples=20", "callbacks.live_quality.max_share=null"),
    *("callbacks.final_samples.points=60", "callbacks.forward_process.points=100", "optimizer.lr=3e-3"),
)
"""A run with log, pictures and its page, in a few seconds."""
_load = OmegaConf.load


def pytest_collection_finish() -> None:
    """Saves CPU time: the collector passes over what is imported by now, and the text of a yaml is parsed once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    OmegaConf.load = staticmethod(_loaded)


def _loaded(file: str | Path | IO) -> DictConfig | ListConfig:
    if isinstance(file, str | Path):
        return _load(file)
    try:
        return copy.deepcopy(_parsed(file.read()))
    except yaml.YAMLError:
        file.seek(0)
        return _load(file)  # the message names the file


@cache
def _parsed(text: str) -> DictConfig | ListConfig:
    return _load(io.StringIO(text))


@pytest.fixture(scope="session")
def measured_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all tests keep what metrics compute of data."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def digits() -> Digits:
    """The loaded digits of scikit-learn."""
    data = Digits(batch_size=64, seed=0)
    data.load()
    return data


@pytest.fixture(autouse=True)
def _isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, measured_folder: Path) -> None:
    """No network, no leftovers of Hydra's, one thread, no files in the data's folder, no pages but in their tests."""
    if not request.module.__name__.startswith("test_report"):  # each would take a quarter of a second and more
        for module in ("commands.training", "reports.quietly"):
            monkeypatch.setattr(f"litdiffusion.{module}.write_quietly", lambda *_: None)
    monkeypatch.setenv("LITDIFFUSION_DATA", str(measured_folder))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    GlobalHydra.instance().clear()
    torch.set_num_threads(1)


def composed(*overrides: str, config_name: str = "train") -> DictConfig:
    """The config that these overrides compose to; a copy, since Hydra takes 40 times as long as copying does."""
    return copy.deepcopy(_composed_once(overrides, config_name))


@cache
def _composed_once(overrides: tuple[str, ...], config_name: str) -> DictConfig:
    """Values are set by Hydra's own rules in a copy of what the groups alone compose to: a tenth of the time."""
    values = tuple(word for word in overrides if (key := VALUE.match(word)) and not (CONF / key[1]).is_dir())
    if not values:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(config_name, overrides=list(overrides))
    cfg = composed(*(word for word in overrides if word not in values), config_name=config_name)
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(list(values)), cfg)
    return cfg


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Experiment]:
    """Builds a tiny run without loggers and callbacks from overrides."""
    return lambda *overrides: build(composed(*TINY, *QUIET, *overrides), Run(tmp_path))


@pytest.fixture
def fitted(built: Callable[..., Experiment]) -> Callable[..., Experiment]:
    """Builds such a run and trains it."""

    def fit(*overrides: str, ckpt_path: str | None = None) -> Experiment:
        experiment = built(*overrides)
        experiment.trainer.fit(experiment.module, experiment.data, ckpt_path=ckpt_path, weights_only=True)
        return experiment

    return fit


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """Runs ``train`` as the command line does, with every callback but the live measures, and returns its folder."""

    def run(*overrides: str, folder: str = "run") -> Path:
        few = [] if "callbacks=none" in overrides else FEW_STATES
        cfg = composed(*TINY, "callbacks.progress_bar=null", *UNMEASURED, *few, *overrides)
        train(cfg, Run(tmp_path / folder, folder))
        return tmp_path / folder

    return run


@pytest.fixture(scope="session")
def _run_on_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once") / "run"
    train(composed(*BARE_RUN, "data.size=600", "schedule.steps=25"), Run(folder, "run"))
    return folder


@pytest.fixture
def finished(_run_on_points: Path, tmp_path: Path) -> Path:
    """The folder of a finished run on points, without pictures: a copy of one that is trained once."""
    return Path(shutil.copytree(_run_on_points, tmp_path / "finished"))


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run with log, pictures and its page; must not be changed."""
    default_config.cache_clear()  # which an earlier test may have read with another LITDIFFUSION_DATA
    folder = tmp_path_factory.mktemp("reported") / "my run"
    train(composed(*REPORTED), Run(folder, "run", overrides=tuple(REPORTED)))
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple]:
    """Runs a script in this process as ``python SCRIPT ARGS`` would: (exit status, stdout, stderr)."""

    def run(script: str, *args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *args])
        if not any(re.search(r"hydra(\.mode|\.searchpath|=)|config-", word) for word in args):
            # Hydra composes everything once more to learn hydra.mode, which conf/train.yaml does not set.
            monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
        status = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture
def poisoned(monkeypatch):
    """Makes the loss of these steps nan; returns what they were called with."""

    def at(*steps: int) -> None:
        honest, calls = DenoisingObjective.__call__, iter(range(10**6))

        def bad(self, denoiser, x_0, *args, **kwargs):
            losses = honest(self, denoiser, x_0, *args, **kwargs)
            return losses._replace(value=losses.value * float("nan")) if next(calls) in steps else losses

        monkeypatch.setattr(DenoisingObjective, "__call__", bad)

    return at
