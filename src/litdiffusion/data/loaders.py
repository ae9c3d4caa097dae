"""Batches from indices: cut from tensors, or decoded from files by worker processes."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from litdiffusion.data.batch import Batch
from litdiffusion.errors import UserError


class Sliceable(Protocol):
    """The data that batches are cut from: a Tensor (N, *shape), or files that are decoded on access."""

    def __len__(self) -> int: ...

    def index_select(self, dim: int, index: Tensor) -> Tensor: ...


def take(data: Sliceable, class_label: Tensor | None, index: Tensor, conditions: Tensor | None = None) -> Batch:
    """The items ``index`` (B,) as a `Batch`, by one gather for the whole batch."""
    # index_select copies whole items; indexing by a tensor takes five times as long on bytes.
    return Batch(data.index_select(0, index), *(None if x is None else x[index] for x in (class_label, conditions)))


class Items(Dataset[Batch]):
    """One part of a data set, with N items; PyTorch fetches a whole batch of it at once."""

    def __init__(self, part: Batch) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part.data)

    def __getitem__(self, index: int) -> Batch:
        item = self._take(torch.tensor([index]))
        return Batch(*(None if x is None else x[0] for x in item))

    def __getitems__(self, indices: list[int] | Tensor) -> Batch | str:
        """The method that PyTorch's fetcher calls for a whole batch; an error is returned as its message."""
        try:
            return self._take(torch.as_tensor(indices))
        except UserError as error:
            # Because an exception raised in a worker carries the worker's whole traceback as its message.
            return str(error)

    def _take(self, index: Tensor) -> Batch:
        return take(self.part.data, self.part.class_label, index, self.part.conditions)


class EpochLoader(DataLoader):
    """PyTorch's DataLoader, except that its iterator reads nothing before the first batch is requested.

    Lightning creates the iterator before it restores the position in the epoch, and before it sets the sampler's epoch.
    Worker processes would otherwise read the wrong items ahead.
    """

    def __iter__(self) -> Iterator[Batch]:
        direct = self.num_workers == 0 and hasattr(self.sampler, "batches")
        for batch in map(self.dataset.__getitems__, self.sampler.batches()) if direct else super().__iter__():
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch

    # Without these two methods Lightning warns when a run resumes inside an epoch. The trainer's state already holds
    # the position.
    def state_dict(self) -> dict[str, int]:
        """Empty: the order is a function of the epoch and of the number of finished batches."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Does nothing, see `state_dict`."""


def return_unchanged(batch: Any) -> Any:
    """The collate function for batches that are fetched whole."""
    return batch


def loader(part: Batch, sampler: Sampler, batch_size: int, num_workers: int = 0, drop_last: bool = False) -> DataLoader:
    """A loader of ``part`` in the sampler's order, with ``num_workers`` worker processes (0: none)."""
    return EpochLoader(
        Items(part),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=return_unchanged,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        # Without its own generator each iter() would draw from the run's global generator, and change later draws.
        generator=torch.Generator(),
    )
