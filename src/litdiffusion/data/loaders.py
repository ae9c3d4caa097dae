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


def take(part: Batch, index: Tensor) -> Batch:
    """The items ``index`` (B,) of ``part``, by one gather for the whole batch."""
    # index_select copies whole items; indexing by a tensor takes five times as long on bytes.
    return Batch(*(None if x is None else x.index_select(0, index) for x in part))


class Items(Dataset[Batch]):
    """One part of a data set, with N items; PyTorch fetches a whole batch of it at once."""

    def __init__(self, part: Batch) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part.data)

    def __getitem__(self, index: int) -> Batch:
        item = take(self.part, torch.tensor([index]))
        return Batch(*(None if x is None else x[0] for x in item))

    def __getitems__(self, indices: list[int] | Tensor) -> Batch | str:
        """The method that PyTorch's fetcher calls for a whole batch; an error is returned as its message."""
        try:
            return take(self.part, torch.as_tensor(indices))
        except UserError as error:
            # Because an exception raised in a worker carries the worker's whole traceback as its message.
            return str(error)


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
            yield pinned(batch) if direct and self.pin_memory else batch

    # Without these two methods Lightning warns when a run resumes inside an epoch. The trainer's state already holds
    # the position.
    def state_dict(self) -> dict[str, int]:
        """Empty: the order is a function of the epoch and of the number of finished batches."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Does nothing, see `state_dict`."""


def pinned(batch: Batch) -> Batch:
    """The batch in memory from which a GPU copies it while the host goes on."""
    return Batch(*(None if x is None else x.pin_memory() for x in batch))


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
