"""What the parts of a run know of its data: the project's own sets declare it, of other people's it is found out."""

import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from litdiffusion.data.base import DataModule, as_batch, check_finite
from litdiffusion.data.batch import Batch
from litdiffusion.data.digest import tensor_digest
from litdiffusion.data.toys import Mixture
from litdiffusion.errors import UserError

MAX_VECTORS, MAX_IMAGES, MAX_BYTES = 10_000, 2_000, 2**28
"""How much is kept of each part for pictures and numbers: vectors, images, and bytes of either."""
RANGES = ((0.0, 1.0), (-1.0, 1.0))
"""The usual intervals of images in floats."""


class Facts(Protocol):
    """What a `DataModule` declares, and what is found out about any other data."""

    shape: tuple[int, ...]
    num_classes: int
    value_range: tuple[float, float] | None
    complete: bool
    mixture: Mixture | None
    train: Batch
    val: Batch

    @property
    def name(self) -> str: ...

    def load(self) -> None: ...

    def reference(self, n: int) -> Tensor: ...

    def training_reference(self, n: int) -> Tensor: ...

    def test(self) -> Batch: ...

    def fingerprint(self) -> str: ...


def facts_of(data: Any, val: Any = None) -> Facts:
    """What is known of ``data``: itself where it is one of this project's data modules, loaded; else `LoaderFacts`.

    A data module of other people's is prepared and set up. If it has no validation data, training items stand in for
    them: it gets a ``val_dataloader`` of the items that are kept, and one line says so.

    Args:
        data: a data module, or a training loader.
        val: a validation loader beside a training loader; None: training items stand in.

    Raises:
        UserError: data that cannot be read, or batches of another kind than `as_batch` takes.
    """
    if isinstance(data, DataModule):
        data.load()
        return data
    if not isinstance(data, L.LightningDataModule):
        return LoaderFacts(data, val)
    data.prepare_data()
    data.setup("fit")
    facts = LoaderFacts(data.train_dataloader(), _val_loader_of(data), data)
    if facts.val is facts.train:
        warnings.warn(
            f"{facts.name} has no validation data: val/loss is that of its first {len(facts.val.data)} training items",
            stacklevel=2,
        )
        data.val_dataloader = facts.val_loader
    return facts


class LoaderFacts:
    """The facts about data that only their loaders show: what they declare, the rest from their first batches.

    ``shape``, ``num_classes`` and ``value_range`` are those of ``declared``, where it has attributes of these names.
    Else the shape is that of the first item, the number of classes one more than the largest label seen, and images
    whose values lie in [0, 1] or [-1, 1] have that range. One line says what was found. Up to 10 000 vectors or 2 000
    images of each part are kept.

    Args:
        train: loader of the training items.
        val: of the validation items; None: training items stand in for them.
        declared: the data module that the loaders belong to, if any.
    """

    mixture = None
    """Nobody knows the law of the data."""

    def __init__(self, train: Any, val: Any = None, declared: Any = None):
        self.name: str = type(train if declared is None else declared).__name__.lower()
        with _fixed_randomness():
            train_part = _first_items(train, "training")
            val_part = train_part if val is None else _first_items(val, "validation")
        self.train, self.val, self.complete = (
            train_part.items,
            val_part.items,
            train_part.complete and val_part.complete,
        )
        first = self.train.data
        self.shape: tuple[int, ...] = tuple(getattr(declared, "shape", None) or first.shape[1:])
        if self.shape != tuple(first.shape[1:]):
            raise UserError(
                f"data.shape={self.shape} is declared, the training loader gives items of {tuple(first.shape[1:])}; "
                f"declare that, or leave shape out"
            )
        self.value_range: tuple[float, float] | None = getattr(declared, "value_range", None) or _range_of(first)
        self.num_classes: int = getattr(declared, "num_classes", None) or _num_classes_of(self.train.class_label)
        self._warn_of_guesses()

    def _warn_of_guesses(self) -> None:
        span = "any value" if self.value_range is None else "values in [{:g}, {:g}]".format(*self.value_range)
        found = f"{self.num_classes} classes" if self.num_classes else "no classes"
        warnings.warn(
            f"{self.name} is read as items of shape {self.shape}, {span}, {found}; set the attributes shape, "
            f"value_range and num_classes where that is wrong",
            stacklevel=3,
        )

    def load(self) -> None:
        """Nothing: what is kept was read when this was made."""

    def val_loader(self) -> DataLoader:
        """The validation items that are kept, in their order."""
        items = TensorDataset(*(part for part in self.val if part is not None))
        return DataLoader(items, batch_size=min(512, len(items)))

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


class FirstItems(NamedTuple):
    """The first items of a loader, in model space, and whether they are all that it has."""

    items: Batch
    complete: bool


def _val_loader_of(data: L.LightningDataModule) -> Any:
    """The validation loader, or None where the module has none: Lightning's own method only raises an exception."""
    written = type(data).val_dataloader is not L.LightningDataModule.val_dataloader or "val_dataloader" in vars(data)
    return (data.val_dataloader() or None) if written else None


@contextmanager
def _fixed_randomness() -> Iterator[None]:
    """Looking at the data changes none of the run's random numbers, and shows the same items each time."""
    with isolate_rng(include_cuda=False):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        yield


def _first_items(loaders: Any, part: str) -> FirstItems:
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    batches, complete = _first_batches(loader)
    if not batches:
        raise UserError(
            f"data: the {part} loader gives no batch; it needs at least one (drop_last=true leaves none of a set that "
            f"is smaller than a batch)"
        )
    shapes = {tuple(batch.data.shape[1:]) for batch in batches}
    if len(shapes) > 1:
        raise UserError(f"data: {part} items have several shapes, {sorted(shapes)[:3]}; make them equal by a transform")
    data = torch.cat([batch.data for batch in batches])
    check_finite(part, data)
    return FirstItems(Batch(data, _joined_class_labels(batches)), complete)


def _first_batches(loader: Iterable[Any]) -> tuple[list[Batch], bool]:
    """The first batches, and whether the loader has no more."""
    batches: list[Batch] = []
    count = size = 0
    for batch in loader:
        batches.append(as_batch(batch))
        data = batches[-1].data
        count, size = count + len(data), size + data.nbytes
        if count >= (MAX_VECTORS if data.ndim == 2 else MAX_IMAGES) or size >= MAX_BYTES:
            return batches, False
    return batches, True


def _joined_class_labels(batches: list[Batch]) -> Tensor | None:
    """Those of all batches where they can be classes: one complete number for each item."""
    class_labels = [batch.class_label for batch in batches]
    if not all(
        isinstance(x, Tensor) and x.ndim == 1 and not (x.is_floating_point() or x.is_complex()) for x in class_labels
    ):
        return None
    return torch.cat(class_labels).long()


def _range_of(x: Tensor) -> tuple[float, float] | None:
    """Of images only: the usual interval that holds all values."""
    if x.ndim != 4:
        return None
    low, high = x.min().item(), x.max().item()
    return next((ends for ends in RANGES if ends[0] <= low and high <= ends[1]), None)


def _num_classes_of(class_label: Tensor | None) -> int:
    return 0 if class_label is None or class_label.min() < 0 else int(class_label.max()) + 1
