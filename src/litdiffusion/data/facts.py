"""Facts about the data of a run: this project's data modules declare them; for other data they are inferred."""

import copy
import warnings
from collections.abc import Sequence, Sized
from typing import Any, Protocol

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from litdiffusion.data.augment import Augment
from litdiffusion.data.base import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.data.digest import tensor_digest
from litdiffusion.data.first_items import first_items, fixed_randomness
from litdiffusion.data.health import class_line, say, warn_of_constant
from litdiffusion.data.identity import Identity
from litdiffusion.data.loaders import loader
from litdiffusion.data.toys import Mixture
from litdiffusion.errors import UserError

RANGES = ((0.0, 1.0), (-1.0, 1.0))
"""The usual value ranges of float images."""


class Facts(Protocol):
    """The attributes and methods of a `DataModule` that other parts use; `LoaderFacts` provides them for other data."""

    shape: tuple[int, ...]
    num_classes: int
    class_names: Sequence[str]
    given_conditions: Sequence[str]
    why_no_classes: str | None
    augment: Augment | None
    value_range: tuple[float, float] | None
    complete: bool
    mixture: Mixture | None
    train: Batch
    val: Batch

    @property
    def name(self) -> str: ...

    @property
    def condition_names(self) -> Sequence[str]: ...

    def choose_conditions(self, names: Sequence[str]) -> None: ...

    def load(self) -> None: ...

    def reference(self, n: int) -> Tensor: ...

    def training_reference(self, n: int) -> Tensor: ...

    def test(self) -> Batch: ...

    def fingerprint(self) -> str: ...

    def identity(self) -> Identity: ...

    def repeatable(self) -> bool: ...


def facts_of(data: Any, val: Any = None) -> Facts:
    """The facts about ``data``: ``data`` itself, loaded, if it is a `DataModule`; else its `LoaderFacts`.

    A data module of another project is prepared and set up. If it has no validation data, it gets a ``val_dataloader``
    of the kept training items, and a warning is issued.

    Args:
        data: a data module, or a training loader.
        val: validation loader beside a training loader; None: training items are used instead.

    Raises:
        UserError: data that cannot be read, or batches of a type that `as_batch` refuses.
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
            f"{facts.name} has no validation data: val/loss is computed on its first {len(facts.val.data)} training "
            f"items",
            stacklevel=2,
        )
        data.val_dataloader = facts.val_loader
    return facts


class LoaderFacts:
    """The facts about data that are known by their loaders: declared attributes, else inferred from the first batches.

    ``shape``, ``num_classes``, ``class_names``, ``augment`` and ``value_range`` are read from ``declared`` if it has
    these attributes. Otherwise the shape is that of the first item, the number of classes is one more than the largest
    class label seen, and images whose values lie in [0, 1] or [-1, 1] have that range. A warning lists the result. Up
    to 10 000 vectors or 2 000 images of each part are kept.

    Args:
        train: loader of the training items.
        val: loader of the validation items; None: training items are used instead.
        declared: the data module that the loaders belong to, if any.
    """

    mixture = None
    """The distribution of such data is unknown."""
    why_no_classes = None

    def __init__(self, train: Any, val: Any = None, declared: Any = None):
        self.name: str = type(train if declared is None else declared).__name__.lower()
        self._loaders, self._declared = (train, val), declared
        with fixed_randomness():
            train_part = first_items(train, "training")
            val_part = train_part if val is None else first_items(val, "validation")
        self.train, self.val, self.complete = (
            train_part.items,
            val_part.items,
            train_part.complete and val_part.complete,
        )
        first = self.train.data
        self.shape: tuple[int, ...] = tuple(getattr(declared, "shape", None) or first.shape[1:])
        if self.shape != tuple(first.shape[1:]):
            raise UserError(
                f"data.shape={self.shape} is declared, but the training loader returns items of "
                f"{tuple(first.shape[1:])}; declare that shape, or none"
            )
        self.value_range: tuple[float, float] | None = getattr(declared, "value_range", None) or _range_of(first)
        self.num_classes: int = getattr(declared, "num_classes", None) or _num_classes_of(self.train.class_label)
        self.class_names = _class_names_of(declared)
        if self.class_names and len(self.class_names) < self.num_classes:
            raise UserError(
                f"{self.name} declares {len(self.class_names)} class_names for {self.num_classes} classes; name all"
            )
        if self.train.class_label is not None:
            self.num_classes = len(self.class_names) or self.num_classes
        self.given_conditions = _condition_names_of(declared, self.train.conditions)
        self.augment: Augment | None = getattr(declared, "augment", None)
        self._counts = [_length_of(loader, part) for loader, part in ((train, self.train), (val, self.val))]
        self._warn_of_guesses()
        warn_of_constant(self.name, first)
        if self.class_names:
            say([class_line(self._counts[0] + (0 if val is None else self._counts[1]), "items", self.class_names)])

    def _warn_of_guesses(self) -> None:
        span = "any value" if self.value_range is None else "values in [{:g}, {:g}]".format(*self.value_range)
        found = f"{self.num_classes} classes" if self.num_classes else "no classes"
        warnings.warn(
            f"{self.name} is read as items of shape {self.shape}, {span}, {found}; set the attributes shape, "
            f"value_range and num_classes if that is wrong",
            stacklevel=3,
        )

    def load(self) -> None:
        """Does nothing: the constructor has read the items."""

    def val_loader(self) -> DataLoader:
        """A loader of the kept validation items, in order."""
        size = len(self.val.data)
        return loader(self.val, SequentialSampler(range(size)), min(512, size))

    @property
    def condition_names(self) -> Sequence[str]:
        """Names of the conditions that the loaders return."""
        return self.given_conditions

    def choose_conditions(self, names: Sequence[str]) -> None:
        """Accepts all conditions of the loaders in their order, or none.

        Raises:
            UserError: others.
        """
        if list(names) not in ([], list(self.given_conditions)):
            known = f"[{','.join(self.given_conditions)}]" if self.given_conditions else "none"
            raise UserError(
                f"conditions {list(names)}: the loaders of {self.name} return {known}, and a model takes all of them "
                f"in this order, or none; let the data module return others"
            )

    def test(self) -> Batch:
        """The kept validation items: the test split is not read during training."""
        return self.val

    def reference(self, n: int) -> Tensor:
        """The first n kept validation items in data space (n, *shape)."""
        return self.val.data[:n]

    def training_reference(self, n: int) -> Tensor:
        """The first n kept training items in data space (n, *shape)."""
        return self.train.data[:n]

    def fingerprint(self) -> str:
        """64 hex digits that change with any kept item."""
        return tensor_digest({"train": self.train.data, "val": self.val.data})

    def identity(self) -> Identity:
        """What identifies the data of a run: counts, and a digest of the kept items with their class labels.

        The order counts only if the loaders have more items than are kept, because a loader may shuffle them anew.
        """
        digests = []
        for part in (self.train, self.val):
            labels = part.class_label if part.class_label is not None else [None] * len(part.data)
            rows = [tensor_digest({"x": x}) + f" {label}" for x, label in zip(part.data, labels, strict=True)]
            if part.conditions is not None:
                rows = [f"{row} {values.tolist()}" for row, values in zip(rows, part.conditions, strict=True)]
            digests += sorted(rows) if self.complete else rows
        return Identity.of_rows("items", *self._counts, digests, self.class_names).without_rows()

    def repeatable(self) -> bool:
        """Whether another reading gives the same kept items; a data module may draw them from an own random source."""
        loaders = self._loaders
        if isinstance(self._declared, L.LightningDataModule):
            self._declared.setup("fit")
            loaders = self._declared.train_dataloader(), _val_loader_of(self._declared)
        with fixed_randomness():
            parts = [first_items(loader, "repeated").items for loader in loaders if loader is not None]
        again = copy.copy(self)
        again.train, again.val = parts[0], parts[-1]
        return again.identity().digest == self.identity().digest


def _val_loader_of(data: L.LightningDataModule) -> Any:
    """The validation loader, or None if the module defines none: Lightning's default method raises an error."""
    written = type(data).val_dataloader is not L.LightningDataModule.val_dataloader or "val_dataloader" in vars(data)
    return (data.val_dataloader() or None) if written else None


def _range_of(x: Tensor) -> tuple[float, float] | None:
    """The first of `RANGES` that contains all values of images (N, C, H, W); None for other data."""
    if x.ndim != 4:
        return None
    low, high = x.min().item(), x.max().item()
    return next((ends for ends in RANGES if ends[0] <= low and high <= ends[1]), None)


def _class_names_of(declared: Any) -> tuple[str, ...]:
    """The class names that a data module declares, by that name; else none."""
    names = getattr(declared, "class_names", None) or ()
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UserError(f"data.class_names={names!r}: must be a list of texts, one for each class")
    return tuple(names)


def _condition_names_of(declared: Any, conditions: Tensor | None) -> list[str]:
    """The names of the conditions (N, D) that a data module declares as ``given_conditions``; else 0, 1, ..."""
    if conditions is None:
        return []
    names = list(getattr(declared, "given_conditions", None) or map(str, range(conditions.shape[1])))
    if len(names) != conditions.shape[1] or not all(isinstance(name, str) for name in names):
        raise UserError(f"data.given_conditions={names!r}: must name each of the {conditions.shape[1]} conditions")
    return names


def _length_of(loader: Any, part: Batch) -> int:
    """Number of items of a loader's data set; of the kept items if it has no length."""
    first = loader[0] if isinstance(loader, list | tuple) and loader else loader
    items = getattr(first, "dataset", None)
    try:
        return len(items) if isinstance(items, Sized) else len(part.data)
    except TypeError:  # an iterable data set inherits a length that raises
        return len(part.data)


def _num_classes_of(class_label: Tensor | None) -> int:
    return 0 if class_label is None or class_label.min() < 0 else int(class_label.max()) + 1
