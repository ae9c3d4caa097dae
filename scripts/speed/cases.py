"""What ``scripts/benchmark.py`` trains: named cases, as runs without pictures, checkpoints and validation."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir

from litdiffusion.build import Experiment, Run, build
from litdiffusion.config.paths import CONF
from litdiffusion.data.base import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.likelihood.bits import BYTES

QUIET = [
    *(f"callbacks.{name}=null" for name in ("trajectory", "forward_process", "final_samples", "field", "best", "last")),
    *("callbacks.live_quality=null", "callbacks.live_likelihood=null", "metrics=none"),
    *("trainer.enable_checkpointing=false", "trainer.limit_val_batches=0", "callbacks.progress_bar=null"),
    *("logger=none", "threads=1"),
]
IMAGES = ["data=digits", "data._target_=speed.cases.RandomImages", "trusted=[speed]", "model=unet"]
CASES = {
    "toy": ["data=spiral"],
    "mlp": ["data=spiral", "data.batch_size=256"],
    "mnist": [*IMAGES, "+data.image_shape=[1,28,28]", "data.batch_size=256"],
    "cifar": [
        *IMAGES,
        *("+data.image_shape=[3,32,32]", "data.batch_size=256", "model.patch=1", "model.channels=[128,256,256,256]"),
        *("model.blocks=4", "model.attention=[1,3]", "model.embedding_dim=512", "model.dropout=0.13"),
    ],
}
"""The spiral with batches of 512 and of 256 points; images of MNIST's size, and of CIFAR-10's with its recipe's net."""
STEPS = {"toy": (400, 50), "mlp": (400, 50), "mnist": (4, 2), "cifar": (1, 1)}
"""Timed steps on a CPU, and steps before them."""
STEPS_ON_GPU = 50, 20


class RandomImages(DataModule):
    """Labelled images of random bytes: the speed of a step does not depend on their content."""

    num_classes = 10
    value_range = BYTES

    def __init__(
        self, *, image_shape: Sequence[int], augment: Any = None, batch_size: int, val_size: int = 16, seed: int
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        self.shape = tuple(image_shape)

    def read(self) -> tuple[Batch, Batch]:
        def part(count: int) -> Batch:
            return Batch(torch.randint(256, (count, *self.shape), dtype=torch.uint8), torch.arange(count) % 10)

        return part(max(1024, self.batch_size)), part(self.val_size)


class Length(NamedTuple):
    """A case, its further overrides, the number of timed steps, and of steps before them."""

    case: str
    overrides: tuple[str, ...]
    timed: int
    before: int


def experiment(length: Length) -> Experiment:
    """The run of a case; it writes no files."""
    steps = f"trainer.max_steps={length.timed + length.before}"
    with initialize_config_dir(str(CONF), version_base="1.3"), TemporaryDirectory() as folder:
        cfg = compose("train", overrides=[*CASES[length.case], *QUIET, steps, *length.overrides])
        return build(cfg, Run(Path(folder)))
