"""The parts that several tests run over: rows, processes in continuous time, the presets of conf/."""

import warnings
from pathlib import Path

from conftest import CONF
from hydra.utils import instantiate
from omegaconf import OmegaConf

from litdiffusion.diffusion.parameterizations import EDM, X0, Epsilon, Flow, PosteriorMean, Score, V
from litdiffusion.diffusion.schedules import VE, VP, LinearFlow, LinearSigma, SubVP

SIGMA_DATA = 0.7
ROWS = {
    "epsilon": lambda s: Epsilon(),
    "x0": lambda s: X0(),
    "v": lambda s: V(),
    "score": lambda s: Score(),
    "flow": Flow,
    "edm": lambda s: EDM(SIGMA_DATA),
    "posterior_mean": PosteriorMean,
}
CONTINUOUS = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": LinearSigma(), "flow": LinearFlow()}


def load(path: Path, **settings):
    """What a yaml describes, with other settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some end early on purpose; that warning has its own tests
        part = OmegaConf.load(path)
        if "sigma_data" in part:
            part.sigma_data = 1.0  # measured in a run
        return instantiate(part, **settings)


def presets(group: str) -> dict:
    """Every choice of a group, by name."""
    return {path.stem: load(path) for path in sorted((CONF / group).glob("*.yaml"))}
