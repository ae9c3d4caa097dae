"""From an order of indices to batches: slices of a tensor in memory, or files decoded by worker processes."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from litdiffusion.data.order import Order
from litdiffusion.errors import UserError
from litdiffusion.types import Batch


class Rows(Protocol):
    """What a batch is cut from: a Tensor (N, *shape), or files that are decoded when asked for."""

    def __len__(self) -> int: ...

    def index_select(self, dim: int, index: Tensor) -> Tensor: ...


def take(data: Rows, label: Tensor | None, index: Tensor) -> Batch:
    """The items ``index`` (B,) as a `Batch`: one gather for the whole batch, no Python per item."""
    # index_select copies whole rows; indexing by a tensor takes five times as long on bytes.
    return Batch(data.index_select(0, index), None if label is None else label[index])


class StepLoader:
    """What both loaders share: a length that counts the whole run, and a state that is empty by design."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __iter__(self) -> Iterator[Batch]:
        raise NotImplementedError

    def __len__(self) -> int:
        # Lightning stops an epoch after len() batches by its own counter, which goes on from the checkpoint's
        # value after a resume, and its progress bar shows counter/len. So the length is that of the whole
        # run, order.stop, although the iteration begins at order.start: a resume at 7 of 20 yields 7..19,
        # shown as 20.
        return self.order.stop

    # Lightning warns on resuming a loader without these two. The position is a function of the step, which
    # the checkpoint has already, so there is nothing to keep.
    def state_dict(self) -> dict[str, int]:
        """Nothing: the order is a pure function of the step."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore, see `state_dict`."""


class TensorLoader(StepLoader):
    """Batches cut from ``data`` (N, *shape) in memory and ``label`` (N,) or None, in a given order."""

    def __init__(self, data: Rows, label: Tensor | None, order: Order) -> None:
        super().__init__(order)
        self.data, self.label = data, label

    def __iter__(self) -> Iterator[Batch]:
        for index in self.order:
            yield take(self.data, self.label, index)


class _Batches(Dataset[Batch | str]):
    """A Dataset whose "item" is a whole batch, asked for by an index tensor; runs in the worker processes."""

    def __init__(self, data: Rows, label: Tensor | None) -> None:
        self.data, self.label = data, label

    def __getitem__(self, index: Tensor) -> Batch | str:
        try:
            return take(self.data, self.label, index)
        except UserError as error:
            # Raised here, it would arrive with the worker's whole traceback as its message.
            return str(error)


class WorkerLoader(StepLoader):
    """The same batches as `TensorLoader`, made by ``num_workers`` processes (0: in this one).

    Errors: a `UserError` raised in a worker arrives here as the same single line.
    """

    def __init__(self, data: Rows, label: Tensor | None, order: Order, num_workers: int) -> None:
        super().__init__(order)
        self.loader = DataLoader(
            _Batches(data, label),
            batch_size=None,
            sampler=order,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            # Without its own generator each iter() would draw from, and so shift, the run's global stream.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch
