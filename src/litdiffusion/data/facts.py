"""What the parts of a run know of its data, for the project's own sets and for data modules of other people."""

import warnings
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor

from litdiffusion.data.base import DataModule, as_batch
from litdiffusion.data.digest import tensor_digest
from litdiffusion.errors import UserError
from litdiffusion.types import Batch

KEPT = {1: 10_000, 3: 2_000}
"""Items that are kept of each part for pictures and numbers, by the number of dimensions of one."""


class Facts(Protocol):
    """What a `DataModule` declares, and what is found out about any other data module."""

    shape: tuple[int, ...]
    num_classes: int
    value_range: tuple[float, float] | None
    train: Batch
    val: Batch

    @property
    def name(self) -> str: ...

    def reference(self, n: int) -> Tensor: ...

    def training_reference(self, n: int) -> Tensor: ...

    def test(self) -> Batch: ...

    def fingerprint(self) -> str: ...


def facts_of(data: L.LightningDataModule) -> Facts:
    """The data module itself where it is one of this project, loaded; else what its loaders show.

    Raises:
        UserError: data that cannot be read, or batches of another kind than `as_batch` takes.
    """
    if isinstance(data, DataModule):
        data.load()
        return data
    return LoaderFacts(data)


class LoaderFacts:
    """The facts about an ordinary LightningDataModule: those that it declares, the others from its first batches.

    ``shape``, ``num_classes`` and ``value_range`` are taken from attributes of these names where the module has them.
    Else the shape is that of the first item, the number of classes one more than the largest label seen, and images
    whose values lie in [0, 1] or [-1, 1] have that range. One line says what was found. Up to 10 000 vectors or 2 000
    images of each part are kept.

    Args:
        data: with ``train_dataloader``; without ``val_dataloader`` training items stand in for validation's.
    """

    def __init__(self, data: L.LightningDataModule):
        self.data = data
        data.prepare_data()
        data.setup("fit")
        first = self.train.data
        self.shape: tuple[int, ...] = tuple(getattr(data, "shape", None) or first.shape[1:])
        if self.shape != tuple(first.shape[1:]):
            raise UserError(
                f"data.shape={self.shape} is declared, the training loader gives items of {tuple(first.shape[1:])}; "
                f"declare that, or leave shape out"
            )
        self.value_range = getattr(data, "value_range", None) or _range_of(first)
        self.num_classes: int = getattr(data, "num_classes", None) or _classes_of(self.train.label)
        span = "any value" if self.value_range is None else "values in [{:g}, {:g}]".format(*self.value_range)
        found = f"{self.num_classes} classes" if self.num_classes else "no classes"
        warnings.warn(
            f"{type(data).__name__} is read as items of shape {self.shape}, {span}, {found}; set the attributes shape, "
            f"value_range and num_classes where that is wrong",
            stacklevel=2,
        )

    @property
    def name(self) -> str:
        """The class's name in lower case."""
        return type(self.data).__name__.lower()

    @cached_property
    def train(self) -> Batch:
        """The first training items, in model space."""
        return _first_items(self.data.train_dataloader(), "train_dataloader")

    @cached_property
    def val(self) -> Batch:
        """The first validation items, or training items where there are none."""
        try:
            loader = self.data.val_dataloader()
        except Exception as error:  # Lightning's own stands for "not written", and raises one of its exceptions
            if type(self.data).val_dataloader is not L.LightningDataModule.val_dataloader:
                raise
            warnings.warn(f"{type(self.data).__name__} has no validation data: {error}", stacklevel=2)
            return self.train
        return _first_items(loader, "val_dataloader") if loader else self.train

    def test(self) -> Batch:
        """The validation items: nothing is asked of the test split while training."""
        return self.val

    def reference(self, n: int) -> Tensor:
        """The first n validation items that are kept, in model space."""
        return self.val.data[:n]

    def training_reference(self, n: int) -> Tensor:
        """Likewise of training."""
        return self.train.data[:n]

    def fingerprint(self) -> str:
        """64 hex digits of the items that are kept."""
        return tensor_digest({"train": self.train.data, "val": self.val.data})


def _first_items(loaders: Any, name: str) -> Batch:
    """Drawn apart from the run's random numbers, so that looking at the data changes nothing."""
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    batches: list[Batch] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for batch in _until_enough(loader, batches):
            batches.append(as_batch(batch))
    if not batches:
        raise UserError(f"data: {name} gives no batch; it needs at least one")
    labels = [batch.label for batch in batches]
    label = None if labels[0] is None else torch.cat(labels)
    return Batch(torch.cat([batch.data for batch in batches]), label)


def _until_enough(loader: Iterable[Any], batches: list[Batch]) -> Iterable[Any]:
    for batch in loader:
        yield batch
        kept = sum(len(part.data) for part in batches)
        if kept >= KEPT.get(batches[0].data.ndim - 1, 2_000):
            return


def _range_of(x: Tensor) -> tuple[float, float] | None:
    """Of images only: the usual interval that holds all values."""
    if x.ndim != 4:
        return None
    low, high = x.min().item(), x.max().item()
    ranges = ((0.0, 1.0), (-1.0, 1.0))
    return next((ends for ends in ranges if ends[0] <= low and high <= ends[1]), None)


def _classes_of(label: Tensor | None) -> int:
    whole = label is not None and label.ndim == 1 and not label.is_floating_point()
    return int(label.max()) + 1 if whole else 0
