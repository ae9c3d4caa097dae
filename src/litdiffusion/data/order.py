"""Which items make a batch: pure functions of (seed, epoch, rank), so a resume needs no state."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler

from litdiffusion.diffusion.seeding import fold_seed

# Names the stream of permutations, apart from noise and data drawn from the same run seed.
_ORDER = int.from_bytes(b"order", "big")


def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The order (size,) of all items in ``epoch``: a pure function of (size, seed, epoch)."""
    generator = torch.Generator().manual_seed(fold_seed(seed, _ORDER, epoch))
    return torch.randperm(size, generator=generator)


def shuffled_batches(size: int, batch_size: int, seed: int, count: int) -> Iterator[Tensor]:
    """``count`` index tensors (batch_size,) over as many epochs as that takes; a permutation's tail is dropped."""
    per_epoch = size // batch_size
    for k in range(count):
        if k % per_epoch == 0:
            items = permutation(size, seed, k // per_epoch)
        yield items[k % per_epoch * batch_size :][:batch_size]


def _zero_batches() -> int:
    return 0


class EpochSampler(DistributedSampler):
    """The indices of one epoch in its own random order, those of this process, whole batches only.

    The permutation's tail that fills no global batch of ``batch_size * world`` items is dropped. Batch k of all
    processes together is the k-th slice of the permutation; the ranks take stripes of it.

    Args:
        size: items of the set.
        batch_size: items of a batch, per process.
        seed: of the permutations.
        rank, world: this process among how many.
        position: how many batches of the epoch are done when an iteration begins; a resumed epoch goes on there.
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
        # A DistributedSampler, since Lightning replaces any other kind in a run of several processes.
        super().__init__(range(size), num_replicas=world, rank=rank, seed=seed, drop_last=True)
        self.size, self.batch_size, self.position = size, batch_size, position

    def __len__(self) -> int:
        return self.size // (self.batch_size * self.num_replicas) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        return iter(self._remaining_indices().tolist())

    def batches(self) -> Iterator[Tensor]:
        """The same indices by batch (batch_size,): a tenth of a toy's step faster than one by one."""
        indices = self._remaining_indices()
        return iter(indices.split(self.batch_size) if len(indices) else ())

    def _remaining_indices(self) -> Tensor:
        items = permutation(self.size, self.seed, self.epoch)[: len(self) * self.num_replicas]
        return items[self.rank :: self.num_replicas][self.position() * self.batch_size :]


class StripeSampler(DistributedSampler):
    """The indices ``rank, rank + world, ...`` in their own order: every item once, none repeated to fill a batch."""

    def __init__(self, size: int, rank: int, world: int) -> None:
        super().__init__(range(size), num_replicas=world, rank=rank, shuffle=False)
        self.index = range(rank, size, world)

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[int]:
        return iter(self.index)


class InOrderSampler(SequentialSampler):
    """All indices in their own order, from the batch on where a resumed epoch stands: for ``overfit_batches``."""

    def __init__(self, size: int, batch_size: int, position: Callable[[], int] = _zero_batches) -> None:
        super().__init__(range(size))
        self.batch_size, self.position = batch_size, position

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.position() * self.batch_size, len(self.data_source)))
