"""What a package must offer to the comparison, and which packages are installed."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from others.case import Case

OnStep = Callable[[], None]


class Settings(NamedTuple):
    """``lr`` replaces the learning rates that the packages document; ``calls`` limits the net's calls per sample."""

    lr: float | None = None
    calls: int | None = None

    def limited(self, calls: int) -> int:
        return calls if self.calls is None else min(calls, self.calls)


class Trained(NamedTuple):
    """A trained model: ``draw`` gives n samples (n, *shape) in the space of the case; ``sampler`` names its way."""

    draw: Callable[[int], Tensor]
    sampler: str


class Rival(NamedTuple):
    """A package: the names of the packages it ``needs``, how it trains, and what it ``forces`` upon a case."""

    name: str
    needs: tuple[str, ...]
    train: Callable[[Case, int, Settings, OnStep], Trained]
    forces: Callable[[Case], str]

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.needs if find_spec(name.replace("-", "_")) is None]


def endless(loader: DataLoader) -> Iterator[Tensor]:
    """The batches of one epoch after another."""
    while True:
        yield from loader


def in_blocks(n: int, size: int, draw: Callable[[int], Tensor]) -> Tensor:
    """n samples, at most ``size`` of them at once."""
    return torch.cat([draw(min(size, n - start)) for start in range(0, n, size)])


@contextmanager
def quiet() -> Iterator[None]:
    """Hides progress bars and lines that every training repeats, and keeps accelerate on the CPU."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        yield
