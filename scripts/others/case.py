"""What all packages share: the data in memory, the batch size, and the net with its initial weights."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from speed.cases import QUIET
from torch import Tensor, nn

from litdiffusion.build import Experiment, Run, build
from litdiffusion.config.metrics import make_quality
from litdiffusion.config.paths import CONF
from litdiffusion.data import bytes_to_floats
from litdiffusion.measure.quality import Quality

COMMON = ("trainer.accelerator=cpu", "threads=1", "conditional=false")
CASES = {
    # A multiple of the batch size, so that every batch is full.
    "spiral": ("data=spiral", "data.size=102400", "metrics.distances=[wasserstein]"),
    "digits": ("data=digits", "model=unet"),
    "mnist": ("data=mnist", "model=unet"),
}


class SameNet(nn.Module):
    """The project's net as a function of x (B, ...) and u (B,), which grows from 0 (data) to 1 (noise)."""

    def __init__(self, net: nn.Module, label_range: tuple[float, float]):
        super().__init__()
        self.net, (self.low, self.high) = net, label_range

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return self.net(x, self.low + (self.high - self.low) * u)


class Case(NamedTuple):
    """Data ``x`` (N, *shape) in memory, standardised points or images in [-1, 1], and how they are trained on."""

    name: str
    overrides: tuple[str, ...]
    x: Tensor
    batch: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    @property
    def is_image(self) -> bool:
        return self.x.ndim == 4

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The range of the values: -1 and 1 for images, the smallest and the largest value of each coordinate."""
        return (torch.tensor(-1.0), torch.tensor(1.0)) if self.is_image else (self.x.amin(0), self.x.amax(0))

    def to_unit(self, x: Tensor) -> Tensor:
        """x on [0, 1]."""
        low, high = self.bounds
        return (x - low) / (high - low)

    def from_unit(self, x: Tensor) -> Tensor:
        """The inverse of `to_unit`."""
        low, high = self.bounds
        return low + (high - low) * x

    def net(self) -> SameNet:
        """The net with the weights that the project's own training starts from."""
        with TemporaryDirectory() as folder:
            built = experiment(self.overrides, 1, folder)
        return SameNet(built.module.denoiser.net, tuple(built.cfg.derived.noise_label_range))


def experiment(overrides: tuple[str, ...], steps: int, folder: str) -> Experiment:
    """A run of the project without pictures, checkpoints, validation and metrics."""
    # Without metrics their settings have no place in the config.
    kept = [word for word in overrides if not word.startswith("metrics.")]
    return build(composed(*kept, *QUIET, f"trainer.max_steps={steps}"), Run(Path(folder)))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def make_case(name: str, overrides: tuple[str, ...]) -> tuple[Case, Quality]:
    """The case, and the project's metrics for its samples."""
    overrides = (*CASES[name], *COMMON, *overrides)
    with TemporaryDirectory() as folder:
        data = experiment(overrides, 1, folder).data
    x = data.train.data
    x = bytes_to_floats(x) if x.dtype == torch.uint8 else x
    cfg = composed(*overrides)
    return Case(name, overrides, x, data.batch_size, cfg.seed), make_quality(cfg, data)
