"""The interface of all quality measures, for callbacks and scripts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from litdiffusion.codecs import Codec, Identity
from litdiffusion.data import DataModule
from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.measure.distances import Copying, Estimate
from litdiffusion.runs.metric_goals import SPREAD

Measured = Mapping[str, Estimate]
"""Estimates by name."""


def logged(section: str, measured: Measured, headline: str) -> dict[str, float]:
    """The values as ``section/name`` for the log, and the spread of the headline as ``section/headline_spread``."""
    values = {f"{section}/{name}": estimate.value for name, estimate in measured.items()}
    return values | ({f"{section}/{headline}{SPREAD}": measured[headline].spread} if headline in measured else {})


class Quality(ABC):
    """Numbers for samples of one data set: the config group ``metrics``.

    `attach` sets the data. Nothing is computed before `prepare` or the first `measure`.
    """

    headline: ClassVar[str]
    """The name of the main number, a ratio: 1 for a perfect sampler."""
    title: ClassVar[str] = "distance"
    """The name of the main number's distance in titles and messages."""
    names: tuple[str, ...]
    """The names of the numbers that exist for every data set of this kind."""
    rising: ClassVar[frozenset[str]] = frozenset()
    """The names of numbers for which larger is better."""
    live: int
    """The number of samples for a measurement during training."""

    codec: Codec
    """The codec of the run; data are noised in its model space."""

    def __init__(self) -> None:
        self.codec = Identity()
        self._data: DataModule | None = None

    @property
    def data(self) -> DataModule:
        if self._data is None:
            raise RuntimeError("attach(data) comes before measure(samples)")
        return self._data

    def attach(self, data: DataModule) -> "Quality":
        """Sets the data; raises a `UserError` for data of another kind."""
        self._data = data
        return self

    def prepare(self) -> None:
        """Computes or loads what `measure` needs of the data alone, so that a missing file is known before samples."""
        _ = self.data  # which must be attached; a subclass does more

    @abstractmethod
    def measure(
        self, samples: Tensor, n: int | None = None, level: Level = CLEAN, class_labels: Tensor | None = None
    ) -> Measured:
        """The numbers of samples (N, ...) in data space, on sets of n samples (None: one set of all).

        ``level`` is the last level of the walk that drew the samples; the data are noised to it before the comparison.
        ``class_labels`` (N,) are the classes that a conditional model drew.
        """

    @abstractmethod
    def rivals(self, n: int, level: Level = CLEAN, baselines: bool = True) -> dict[str, Measured]:
        """The numbers of data and of baselines, in the place of n samples; the first, ``data``, is the noise floor.

        ``baselines=False`` leaves out all but the data.
        """

    def rival_samples(self, n: int, level: Level = CLEAN, baselines: bool = True) -> dict[str, Tensor]:
        """n data items under ``data``, and n samples of every baseline that can be shown as vectors, by name."""
        return {"data": self.data.reference(n)}

    def copying(self, samples: Tensor) -> Copying | None:
        """Whether samples copy training items, see `copying_check`; None if these metrics do not look for copies."""
        return None

    @abstractmethod
    def legend(self) -> str:
        """One line that explains the numbers and their floor."""
