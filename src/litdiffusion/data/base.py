"""The contract of every data set: two parts, train and val, and the batches that are cut from them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from litdiffusion.data.batch import Batch
from litdiffusion.data.digest import tensor_digest
from litdiffusion.data.loaders import Sliceable, loader
from litdiffusion.data.order import EpochSampler, InOrderSampler, StripeSampler
from litdiffusion.data.toys import Mixture
from litdiffusion.errors import UserError

# A constant, so that runs with different seeds are compared on the same validation items.
_HOLD_OUT_SEED = 20_201

BYTES = (-1.0, 1.0)
"""The range in model space of what was stored as bytes, see `to_model_space`."""


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Raise a `UserError` unless ``value >= minimum``; ``name`` is the config's, without ``data.``."""
    if not value >= minimum:
        raise UserError(f"data.{name}={value}: must be at least {minimum}; set data.{name}={minimum} or more")


def hold_out(size: int, val_size: int) -> tuple[Tensor, Tensor]:
    """Indices of the training part (size - val_size,) and of the held-out part (val_size,), always the same.

    Both stand in random order, so the first n of either are a fair picture of the set.
    Errors: `UserError` unless 1 <= val_size < size.
    """
    if not 1 <= val_size < size:
        remedy = f"set data.val_size between 1 and {size - 1}" if size > 1 else "at least 2 are needed"
        raise UserError(f"data.val_size={val_size}: the set has {size} items; {remedy}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(_HOLD_OUT_SEED))
    return order[val_size:], order[:val_size]


def to_model_space(x: Tensor) -> Tensor:
    """What a model sees: uint8 becomes ``x / 127.5 - 1`` in [-1, 1], in the default dtype; floats pass unchanged."""
    return (x.float() / 127.5 - 1).to(torch.get_default_dtype()) if x.dtype == torch.uint8 else x


def as_batch(batch: Any) -> Batch:
    """What a loader gave, a tensor x, a pair (x, class) or a `Batch`, as a batch in model space and the default dtype.

    Errors: `UserError` for anything else, and for items that are neither floats nor bytes.
    """
    parts = (batch,) if isinstance(batch, Tensor) else tuple(batch) if isinstance(batch, Sequence) else ()
    if not (1 <= len(parts) <= 2 and isinstance(parts[0], Tensor)):
        raise UserError(
            f"a batch must be a tensor (B, ...) or a pair (tensor, classes), the loader gives {type(batch).__name__}; "
            f"let its collate_fn or its data set return one of these"
        )
    data = to_model_space(parts[0])
    if not data.is_floating_point():
        raise UserError(
            f"items must be floats, or bytes (uint8) of images, the loader gives {data.dtype}; convert them in the "
            f"data set or its transform"
        )
    return Batch(data.to(torch.get_default_dtype()), *parts[1:])


def check_finite(part: str, data: Sliceable) -> None:
    """Raise a `UserError` that counts a float tensor's NaN and infinite values and names the first item."""
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
    """A data set with its declared facts; a subclass sets the three facts and writes `read`.

    ``batch_size`` is per process, ``val_size`` the number of validation items, ``seed`` drives the order of
    training items (and the draws of a synthetic set). Errors: `UserError` for values below 1.
    """

    shape: tuple[int, ...]
    """Of one item in model space: (2,) for points, (1, 28, 28) for images."""
    num_classes: int = 0
    """How many classes the labels have; 0 for an unlabelled set."""
    value_range: tuple[float, float] | None = None
    """The closed interval of model space that data lie in, (-1, 1) for images; None where unbounded."""
    mixture: Mixture | None = None
    """The law of the data in closed form, in model space, where it is a mixture of Gaussians."""
    complete: bool = True
    """Whether `train` and `val` are all items, and not only the first ones."""
    num_workers: int = 0
    """Processes that make the batches; 0: this one."""
    train: Batch
    val: Batch

    def __init__(self, *, batch_size: int, val_size: int, seed: int) -> None:
        super().__init__()
        check_at_least("batch_size", batch_size, 1)
        check_at_least("val_size", val_size, 1)
        self.batch_size, self.val_size, self.seed = batch_size, val_size, seed
        self._loaded = False
        self._fingerprint: str | None = None

    @property
    def name(self) -> str:
        """What the set is called in names of files and tables: "digits", say."""
        return type(self).__name__.lower()

    @abstractmethod
    def read(self) -> tuple[Batch, Batch]:
        """The whole training and validation parts: uint8 images (N, C, H, W) or float32 vectors (N, d)."""
        raise NotImplementedError

    def load(self) -> None:
        """Fill `train` and `val` once; every error of the data or of its sizes appears here (`UserError`)."""
        if not self._loaded:
            self.train, self.val = self.read()
            check_finite("training", self.train.data)
            check_finite("validation", self.val.data)
            self._loaded = True
        self._check_batch_size()

    def test(self) -> Batch:
        """The official test split, labelled like the others, or the validation part of a set that has none."""
        self.load()
        return self.val

    def fingerprint(self) -> str:
        """64 hex digits that change with any training or validation item and with any label; computed once."""
        self.load()
        if self._fingerprint is None:
            self._fingerprint = self._digest()
        return self._fingerprint

    def setup(self, stage: str) -> None:
        """Lightning's hook; repeats the size check, now that the number of processes is known."""
        self.load()

    def train_dataloader(self) -> DataLoader:
        """One epoch: every item once, in the epoch's own order, in whole batches; it goes on where a resume stands."""
        size, batch_size, (rank, world) = len(self.train.data), self.batch_size, self._rank_and_world()
        if self.trainer is not None and self.trainer.overfit_batches:
            # The same batches in every epoch; Lightning accepts this kind of sampler for it, and no other.
            sampler = InOrderSampler(size, batch_size, self._batches_done)
        else:
            sampler = EpochSampler(size, batch_size, self.seed, rank, world, self._batches_done)
        return self.make_loader(self.train, sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """The validation part in its own order; the last batch may be smaller; ranks take stripes."""
        return self._in_order_loader(self.val)

    def test_dataloader(self) -> DataLoader:
        """The test split likewise."""
        return self._in_order_loader(self.test())

    def predict_dataloader(self) -> DataLoader:
        """As many items as there are for validation: ``Trainer.predict`` draws a sample for each."""
        return self._in_order_loader(self.val)

    def make_loader(self, part: Batch, sampler: Sampler, drop_last: bool = False) -> DataLoader:
        """The batches of ``part`` in the sampler's order."""
        return loader(part, sampler, self.batch_size, self.num_workers, drop_last)

    def reference(self, n: int) -> Tensor:
        """The first min(n, val_size) validation items in model space (n, *shape), for pictures."""
        return self._first_items(self.val, n)

    def training_reference(self, n: int) -> Tensor:
        """Likewise the first n training items (n, *shape)."""
        return self._first_items(self.train, n)

    def _first_items(self, part: Batch, n: int) -> Tensor:
        return to_model_space(part.data.index_select(0, torch.arange(min(n, len(part.data)))))

    def _digest(self) -> str:
        rows = {f"{name}.data": part.data for name, part in (("train", self.train), ("val", self.val))}
        class_labels = {"train.label": self.train.class_label, "val.label": self.val.class_label}
        return tensor_digest(
            rows | {name: class_label for name, class_label in class_labels.items() if class_label is not None}
        )

    def _in_order_loader(self, part: Batch) -> DataLoader:
        (rank, world), size = self._rank_and_world(), len(part.data)
        return self.make_loader(
            part, SequentialSampler(range(size)) if world == 1 else StripeSampler(size, rank, world)
        )

    def _batches_done(self) -> int:
        """Of the epoch that the trainer is in; Lightning counts a batch when it is fetched."""
        return 0 if self.trainer is None else self.trainer.fit_loop.batch_idx + 1

    def _rank_and_world(self) -> tuple[int, int]:
        """(rank, number of processes): (0, 1) before a Trainer is attached."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _check_batch_size(self) -> None:
        size, world = len(self.train.data), self._rank_and_world()[1]
        if self.batch_size * world > size:
            # An item for each process is the least that training can do with.
            remedy = f"set data.batch_size={size // world}" if size >= world else "use fewer processes"
            raise UserError(
                f"data.batch_size={self.batch_size} on {world} process(es) is more than the {size} training"
                f" items; allowed are 1 to {size // world}: {remedy} or less"
            )
