"""What every measure of samples offers to the callbacks and scripts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from litdiffusion.data import DataModule
from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.measure.distances import Estimate

Measured = Mapping[str, Estimate]
"""Numbers by name, each with its spread and sample count."""


class Quality(ABC):
    """Numbers for samples of one data set: the group ``metrics``.

    It is built without data and costs nothing until `measure` is called; `attach` names the data.
    """

    headline: ClassVar[str]
    """The one number to look at, a ratio: 1 is a perfect sampler."""
    names: tuple[str, ...]
    """Of the numbers that are measured on every data set of this kind."""
    rising: ClassVar[frozenset[str]] = frozenset()
    """Those of which more is better."""
    live: ClassVar[int]
    """Samples for a measurement during training."""

    def __init__(self) -> None:
        self._data: DataModule | None = None

    @property
    def data(self) -> DataModule:
        if self._data is None:
            raise RuntimeError("attach(data) comes before measure(samples)")
        return self._data

    def attach(self, data: DataModule) -> "Quality":
        """Names the data; raises `UserError` where they cannot be measured this way."""
        self._data = data
        return self

    @abstractmethod
    def measure(
        self, samples: Tensor, n: int | None = None, level: Level = CLEAN, class_labels: Tensor | None = None
    ) -> Measured:
        """The numbers of samples (N, ...) in data space, on sets of n of them (None: all in one).

        ``level`` is where the walk that drew them ended: the data are noised to it before they are compared.
        ``class_labels`` (N,) are the classes that were asked for, of a conditional model.
        """

    @abstractmethod
    def rivals(self, n: int, level: Level = CLEAN) -> dict[str, Measured]:
        """What to read the numbers against, by name; the first is data in the place of samples: the noise floor."""

    @abstractmethod
    def legend(self) -> str:
        """One line: what the numbers are of, and what their spread is."""
