"""The order of items in batches: pure functions of (seed, epoch, rank), so a resumed run needs no sampler state."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler

from litdiffusion.diffusion.seeding import fold_seed


def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The order (size,) of all items in ``epoch``: a pure function of (size, seed, epoch)."""
    generator = torch.Generator().manual_seed(fold_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


def shuffled_batches(size: int, batch_size: int, seed: int, count: int) -> Iterator[Tensor]:
    """``count`` index tensors (batch_size,) over as many epochs as needed; each drops an incomplete last batch."""
    per_epoch = size // batch_size
    for k in range(count):
        if k % per_epoch == 0:
            items = permutation(size, seed, k // per_epoch)
        yield items[k % per_epoch * batch_size :][:batch_size]


def _zero_batches() -> int:
    return 0


class EpochSampler(DistributedSampler):
    """Indices of one epoch for this process, in the epoch's own random order, in whole batches only.

    The tail of the permutation that fills no global batch of ``batch_size * world`` items is dropped. The global batch
    k is the k-th slice of the permutation; each process takes every world-th index of it.

    Args:
        size: number of items.
        batch_size: items of a batch, per process.
        seed: seed of the permutations.
        rank, world: index of this process, and number of processes.
        position: returns how many batches of the epoch are done when an iteration begins; a resumed epoch continues
            there.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        position: Callable[[], int] = _zero_batches,
    ) -> None:
        # A DistributedSampler, because Lightning replaces any other kind in a run of several processes.
        super().__init__(range(size), num_replicas=world, rank=rank, seed=seed, drop_last=True)
        self.size, self.batch_size, self.position = size, batch_size, position

    def __len__(self) -> int:
        return self.size // (self.batch_size * self.num_replicas) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        return iter(self._remaining_indices().tolist())

    def batches(self) -> Iterator[Tensor]:
        """The same indices as one tensor (batch_size,) per batch, which saves a tenth of a toy's step."""
        indices = self._remaining_indices()
        return iter(indices.split(self.batch_size) if len(indices) else ())

    def _remaining_indices(self) -> Tensor:
        items = permutation(self.size, fold_seed(self.seed, "epoch"), self.epoch)[: len(self) * self.num_replicas]
        return items[self.rank :: self.num_replicas][self.position() * self.batch_size :]


class StripeSampler(DistributedSampler):
    """The indices ``rank, rank + world, ...`` in ascending order: each item once, none repeated to fill a batch."""

    def __init__(self, size: int, rank: int, world: int) -> None:
        super().__init__(range(size), num_replicas=world, rank=rank, shuffle=False)
        self.index = range(rank, size, world)

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[int]:
        return iter(self.index)


class InOrderSampler(SequentialSampler):
    """All indices in ascending order, from the position of a resumed epoch on; used for ``overfit_batches``."""

    def __init__(self, size: int, batch_size: int, position: Callable[[], int] = _zero_batches) -> None:
        super().__init__(range(size))
        self.batch_size, self.position = batch_size, position

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.position() * self.batch_size, len(self.data_source)))
