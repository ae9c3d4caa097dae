"""The base class of all data sets: training items, validation items, and the loaders of their batches."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from litdiffusion.data.arrays import as_class_labels, as_conditions, as_items, bytes_to_floats
from litdiffusion.data.augment import Augment
from litdiffusion.data.batch import Batch
from litdiffusion.data.conditions import check_conditions, chosen_columns, mean_grey
from litdiffusion.data.digest import tensor_digest
from litdiffusion.data.health import LOOKED_AT, class_line, say, warn_of_constant
from litdiffusion.data.identity import Identity
from litdiffusion.data.loaders import Sliceable, loader
from litdiffusion.data.order import EpochSampler, InOrderSampler, StripeSampler
from litdiffusion.data.toys import Mixture
from litdiffusion.errors import UserError

# A constant, because runs with different seeds are compared on the same validation items.
_HOLD_OUT_SEED = 20_201
DECODED = 64
"""How many items of a set that is decoded on access are looked at for constant values."""
CHUNK = 4096
"""How many items a condition is computed of at once."""


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Raises a `UserError` unless ``value >= minimum``; ``name`` is the config key without ``data.``."""
    if not value >= minimum:
        raise UserError(f"data.{name}={value}: must be at least {minimum}; set data.{name}={minimum} or more")


def hold_out(size: int, val_size: int) -> tuple[Tensor, Tensor]:
    """Indices of the training items (size - val_size,) and of the validation items (val_size,), the same in every run.

    Both are in random order, so the first n of either are a random subset of the data.

    Raises:
        UserError: unless ``1 <= val_size < size``.
    """
    if not 1 <= val_size < size:
        remedy = f"set data.val_size between 1 and {size - 1}" if size > 1 else "at least 2 are needed"
        raise UserError(f"data.val_size={val_size}: the set has {size} items; {remedy}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(_HOLD_OUT_SEED))
    return order[val_size:], order[:val_size]


def as_batch(batch: Any) -> Batch:
    """A `Batch` in data space and the default dtype, from a loader's items x, pair (x, class label) or `Batch`.

    x and the class labels are tensors or arrays of any numeric type, see `as_items`. A third part is the conditions
    (B, D), with a class label of None if there are no classes. Only a `Batch` has latents.

    Raises:
        UserError: for any other type, and for images of integers that are not bytes.
    """
    arrays = Tensor | np.ndarray
    parts = (batch,) if isinstance(batch, arrays) else tuple(batch) if isinstance(batch, Sequence) else ()
    most = len(Batch._fields) if isinstance(batch, Batch) else 3  # latents come from this project alone
    if not (1 <= len(parts) <= most and isinstance(parts[0], arrays)):
        raise UserError(
            f"a batch must be a tensor (B, ...) or a pair (tensor, class labels), but the loader returns "
            f"{type(batch).__name__}; let its collate_fn or its data set return one of these"
        )
    kinds = (lambda x: bytes_to_floats(as_items(x))), as_class_labels, as_conditions, lambda latent: latent
    return Batch(*(as_kind(part) for as_kind, part in zip(kinds, parts, strict=False)))


def as_part(part: Batch) -> Batch:
    """Training or validation items as a `DataModule` keeps them, see `as_items`; files are left as they are."""
    data = as_items(part[0]) if isinstance(part[0], Tensor | np.ndarray) else part[0]
    return Batch(data, as_class_labels(part.class_label), as_conditions(part.conditions), part.latent)


def check_finite(part: str, data: Sliceable) -> None:
    """Raises a `UserError` if a float tensor has NaN or infinite values; it counts them and names the first item."""
    if not isinstance(data, Tensor) or not data.is_floating_point():
        return
    bad = ~torch.isfinite(data)
    if bad.any():
        items = bad.flatten(1).any(1).nonzero().flatten()
        raise UserError(
            f"the {part} data have {int(bad.sum())} values that are NaN or infinite, in {len(items)} of"
            f" {len(data)} items, the first of them item {int(items[0])}; remove or repair these items"
        )


class DataModule(LightningDataModule):
    """A data set with its shape, classes and value range; a subclass sets these attributes and implements `read`.

    ``batch_size`` is per process. ``val_size`` is the number of validation items. ``seed`` drives the order of the
    training items, and the random draws of a synthetic set.

    Raises:
        UserError: for sizes below 1.
    """

    shape: tuple[int, ...]
    """Shape of one item in data space: (2,) for points, (1, 28, 28) for images."""
    num_classes: int = 0
    """Number of classes; 0 for data without class labels."""
    class_names: Sequence[str] = ()
    """Names of the classes in the order of their class labels; empty if they have none."""
    given_conditions: Sequence[str] = ()
    """Names of the conditions (N, D) that `read` returns with the items."""
    why_no_classes: str | None = None
    """Why data that look as if they had classes have none, with the remedy; else None."""
    augment: Augment | None = None
    """Random changes of training batches; None: no changes."""
    value_range: tuple[float, float] | None = None
    """Closed interval of data space that contains the data, (-1, 1) for images; None if unbounded."""
    mixture: Mixture | None = None
    """The data distribution in closed form, in data space; None unless it is a mixture of Gaussians."""
    complete: bool = True
    """Whether `train` and `val` hold all items; False if they hold only the first ones."""
    found: Mapping[str, Any] = MappingProxyType({})
    """Arguments that were null and that `read` found in the data, for the config of what ran."""
    num_workers: int = 0
    """Number of processes that load batches; 0: the main process loads them."""
    train: Batch
    val: Batch

    def __init__(self, *, batch_size: int, val_size: int, seed: int) -> None:
        super().__init__()
        check_at_least("batch_size", batch_size, 1)
        check_at_least("val_size", val_size, 1)
        self.batch_size, self.val_size, self.seed = batch_size, val_size, seed
        self._loaded = False
        self._chosen: tuple[str, ...] | None = None
        self._fingerprint: str | None = None

    @property
    def name(self) -> str:
        """Name of the data set in file names and tables, e.g. "digits"."""
        return type(self).__name__.lower()

    @abstractmethod
    def read(self) -> tuple[Batch, Batch]:
        """The training and the validation items: vectors (N, d) or images (N, C, H, W); types as in `as_items`."""
        raise NotImplementedError

    def load(self) -> None:
        """Fills `train` and `val` once.

        Raises:
            UserError: for bad data, or sizes that do not fit the data.
        """
        if not self._loaded:
            self._read = tuple(map(as_part, self.read()))
            self.train, self.val = self._read
            check_finite("training", self.train.data)
            check_finite("validation", self.val.data)
            self._loaded = True
            say(self.notes())
            count = LOOKED_AT if isinstance(self.train.data, Tensor) else DECODED
            warn_of_constant(self.name, self._first_items(self.train, count))
        self._check_batch_size()

    @property
    def num_training_items(self) -> int | None:
        """Number of training items; None if it is unknown, as that of a stream may be."""
        return len(self.train.data)

    def computed_conditions(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Conditions that follow from the items: name -> function of items in data space (n, *shape) -> (n,).

        Images have ``grey``, see `mean_grey`; other data none, unless a subclass declares them.
        """
        images = len(self.shape) == 3 and self.value_range is not None
        return {"grey": partial(mean_grey, low=self.value_range[0], high=self.value_range[1])} if images else {}

    @property
    def condition_names(self) -> list[str]:
        """Names of all conditions that these data can give."""
        return [*self.given_conditions, *self.computed_conditions()]

    def choose_conditions(self, names: Sequence[str]) -> None:
        """Lets `train`, `val`, `test` and the loaders return these conditions, in this order; none by an empty list.

        Raises:
            UserError: unknown names, values that are not finite, or images that are decoded on access.
        """
        self.load()
        chosen_columns(names, self.condition_names, f"conditions {list(names)}")
        self._chosen = tuple(names)
        self.train, self.val = map(self._with_conditions, self._read)

    def _with_conditions(self, part: Batch) -> Batch:
        """The part with the chosen conditions (N, D); with those that are given, if none were ever chosen."""
        if self._chosen is None:
            return part
        if not self._chosen:
            return part._replace(conditions=None)
        given, computed = list(self.given_conditions), self.computed_conditions()
        columns = [
            part.conditions[:, given.index(name)] if name in given else self._computed(name, computed[name], part.data)
            for name in self._chosen
        ]
        values = torch.stack(columns, dim=1)
        check_conditions(self.name, self._chosen, values)
        return part._replace(conditions=values)

    def _computed(self, name: str, function: Callable[[Tensor], Tensor], data: Sliceable) -> Tensor:
        if not isinstance(data, Tensor):
            raise UserError(
                f"the condition {name} is computed of images in memory, these are decoded when they are needed; raise "
                f"data.memory_limit_gb, or leave {name} out"
            )
        return torch.cat([function(bytes_to_floats(chunk)) for chunk in data.split(CHUNK)])

    def notes(self) -> list[str]:
        """Lines about what was read, which are printed once: a set with named classes says which number has which."""
        noun = "images" if len(self.train.data.shape) == 4 else "items"
        count = len(self.train.data) + len(self.val.data)
        lines = [class_line(count, noun, self.class_names)] if self.class_names else []
        return [*lines, f"no classes: {self.why_no_classes}"] if self.why_no_classes else lines

    def identity(self) -> Identity:
        """What identifies the data of a run: counts and `fingerprint`."""
        self.load()
        sizes = len(self.train.data), len(self.val.data)
        return Identity("items", *sizes, self.fingerprint(), tuple(self.class_names))

    def repeatable(self) -> bool:
        """Whether another reading gives the same items: `read` must do so."""
        return True

    def test(self) -> Batch:
        """The official test split with its class labels, or the validation items if the data set has no test split."""
        self.load()
        return self.val

    def fingerprint(self) -> str:
        """64 hex digits that change with any training or validation item and any class label; computed once."""
        self.load()
        if self._fingerprint is None:
            self._fingerprint = self._digest()
        return self._fingerprint

    def setup(self, stage: str) -> None:
        """Lightning's hook: loads the data, and checks the batch size now that the number of processes is known."""
        self.load()

    def train_dataloader(self) -> DataLoader:
        """Whole batches of one epoch, each item at most once, in the epoch's own random order.

        A resumed epoch continues after its last finished batch.
        """
        size, batch_size, (rank, world) = len(self.train.data), self.batch_size, self._rank_and_world()
        if self.trainer is not None and self.trainer.overfit_batches:
            # overfit_batches repeats the same batches; Lightning accepts only a SequentialSampler for that.
            sampler = InOrderSampler(size, batch_size, self._batches_done)
        else:
            sampler = EpochSampler(size, batch_size, self.seed, rank, world, self._batches_done)
        return self.make_loader(self.train, sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """The validation items in stored order; the last batch may be smaller; processes take every world-th item."""
        return self._in_order_loader(self.val)

    def test_dataloader(self) -> DataLoader:
        """The test items in stored order, divided like the validation items."""
        return self._in_order_loader(self._with_conditions(self.test()))

    def predict_dataloader(self) -> DataLoader:
        """The validation items: ``Trainer.predict`` draws one sample for each of them."""
        return self._in_order_loader(self.val)

    def make_loader(self, part: Batch, sampler: Sampler, drop_last: bool = False) -> DataLoader:
        """A loader of the batches of ``part`` in the sampler's order."""
        return loader(part, sampler, self.batch_size, self.num_workers, drop_last)

    def reference(self, n: int) -> Tensor:
        """The first min(n, val_size) validation items in data space (n, *shape), for pictures."""
        return self._first_items(self.val, n)

    def training_reference(self, n: int) -> Tensor:
        """The first min(n, number of items) training items in data space (n, *shape), for pictures."""
        return self._first_items(self.train, n)

    def _first_items(self, part: Batch, n: int) -> Tensor:
        return bytes_to_floats(part.data.index_select(0, torch.arange(min(n, len(part.data)))))

    def _digest(self) -> str:
        tensors = {f"{name}.data": part.data for name, part in (("train", self.train), ("val", self.val))}
        beside = {"train.label": self.train.class_label, "val.label": self.val.class_label}
        beside |= {
            f"{name}.conditions": part.conditions for name, part in zip(("train", "val"), self._read, strict=True)
        }
        return tensor_digest(tensors | {name: x for name, x in beside.items() if x is not None})

    def _in_order_loader(self, part: Batch) -> DataLoader:
        (rank, world), size = self._rank_and_world(), len(part.data)
        return self.make_loader(
            part, SequentialSampler(range(size)) if world == 1 else StripeSampler(size, rank, world)
        )

    def _batches_done(self) -> int:
        """Number of finished batches of the current epoch; Lightning counts a batch when it is fetched."""
        return 0 if self.trainer is None else self.trainer.fit_loop.batch_idx + 1

    def _rank_and_world(self) -> tuple[int, int]:
        """(rank, number of processes): (0, 1) before a Trainer is attached."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _check_batch_size(self) -> None:
        size, world = self.num_training_items, self._rank_and_world()[1]
        if size is not None and self.batch_size * world > size:
            # Every process needs at least one item.
            remedy = f"set data.batch_size={size // world} or less" if size >= world else "use fewer processes"
            raise UserError(
                f"data.batch_size={self.batch_size} on {world} process(es) is more than the {size} training"
                f" items; allowed are 1 to {size // world}; {remedy}"
            )
