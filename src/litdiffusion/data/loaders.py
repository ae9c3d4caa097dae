"""From indices to batches: whole batches are cut from tensors, or from files that worker processes decode."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from litdiffusion.data.batch import Batch
from litdiffusion.errors import UserError


class Sliceable(Protocol):
    """What a batch is cut from: a Tensor (N, *shape), or files that are decoded when asked for."""

    def __len__(self) -> int: ...

    def index_select(self, dim: int, index: Tensor) -> Tensor: ...


def take(data: Sliceable, class_label: Tensor | None, index: Tensor) -> Batch:
    """The items ``index`` (B,) as a `Batch`: one gather for the whole batch, no Python per item."""
    # index_select copies whole rows; indexing by a tensor takes five times as long on bytes.
    return Batch(data.index_select(0, index), None if class_label is None else class_label[index])


class Items(Dataset[Batch]):
    """A part of a data set, (N, ...); a batch is fetched at once."""

    def __init__(self, part: Batch) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part.data)

    def __getitem__(self, index: int) -> Batch:
        item = take(*self.part, torch.tensor([index]))
        return Batch(*(None if x is None else x[0] for x in item))

    def __getitems__(self, indices: list[int] | Tensor) -> Batch | str:
        """The hook by which PyTorch's fetcher asks for a whole batch."""
        try:
            return take(*self.part, torch.as_tensor(indices))
        except UserError as error:
            # Raised in a worker, it would arrive with the worker's whole traceback as its message.
            return str(error)


class EpochLoader(DataLoader):
    """PyTorch's loader, whose iterator begins at the first batch that is asked for.

    Lightning makes the iterator before it has restored how far an epoch had come, and before it tells the sampler the
    epoch. Worker processes would then have read the wrong items ahead.
    """

    def __iter__(self) -> Iterator[Batch]:
        direct = self.num_workers == 0 and hasattr(self.sampler, "batches")
        for batch in map(self.dataset.__getitems__, self.sampler.batches()) if direct else super().__iter__():
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch

    # Lightning warns on resuming inside an epoch of a loader without these two. Where the epoch stands is in the
    # trainer's own state already.
    def state_dict(self) -> dict[str, int]:
        """Nothing: the order is a function of the epoch and of how far it has come."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore, see `state_dict`."""


def return_unchanged(batch: Any) -> Any:
    """What a loader collates where batches are fetched whole: the batch as it is."""
    return batch


def loader(part: Batch, sampler: Sampler, batch_size: int, num_workers: int = 0, drop_last: bool = False) -> DataLoader:
    """Batches of ``part`` in the sampler's order, made by ``num_workers`` processes (0: in this one)."""
    return EpochLoader(
        Items(part),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=return_unchanged,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        # Without its own generator each iter() would draw from, and so shift, the run's global stream.
        generator=torch.Generator(),
    )
