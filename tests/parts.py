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


NETS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem != "autoencoder")
"""Every choice of the group ``model`` that denoises."""
VECTOR_NETS = ("mlp", "residual_mlp")
SMALL_NETS = {
    "unet": ["model.channels=[8]", "model.blocks=1"],
    "source_unet": ["model.base_channels=8", "model.depth=1"],
    "dit": ["model.width=16", "model.depth=1"],
    "diffusers_unet": ["model.net.block_out_channels=[8,8]"],
    "diffusers_dit": ["model.net.num_attention_heads=1", "model.net.num_layers=1"],
    "unet1d": ["model.channels=[8]", "model.blocks=1"],
}
"""What makes a net small enough for a test; the others are."""


def words_for_net(name: str) -> list[str]:
    """The overrides of a small run with a net, on data that it takes."""
    data = ["data=spiral"] if name in VECTOR_NETS else ["data=profiles"] if name == "unet1d" else ["data=digits"]
    return [f"model={name}", *data, "data.batch_size=8", "schedule.steps=25", *SMALL_NETS.get(name, [])]
