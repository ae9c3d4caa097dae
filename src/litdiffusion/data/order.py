"""Which items make the batch of a step: pure functions of (seed, step, rank), so a resume needs no state."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.seeding import fold_seed

# Names the stream of permutations, apart from noise and data drawn from the same run seed.
_ORDER = int.from_bytes(b"order", "big")


class Order(Protocol):
    """An iterable of index tensors (B,), with ``stop``: what a batch counter shows at its end."""

    stop: int

    def __iter__(self) -> Iterator[Tensor]: ...

    def __len__(self) -> int: ...


def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The order (size,) of all items in ``epoch``: a pure function of (size, seed, epoch)."""
    generator = torch.Generator().manual_seed(fold_seed(seed, _ORDER, epoch))
    return torch.randperm(size, generator=generator)


class BatchOrder:
    """Index tensors (batch_size,) for the steps k = start, ..., stop - 1 of a training run.

    Epoch ``e = k // per_epoch`` with ``per_epoch = size // (batch_size * world)``: a permutation's incomplete
    tail is dropped, so every batch is full. A global batch has ``batch_size * world`` items, which the ranks
    share in disjoint stripes. Starting at step k yields exactly the tail of a start at 0.

    Errors: `UserError` where a global batch is larger than the set, or where an argument is out of range.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        if not 1 <= batch_size * world <= size:
            allowed = f"allowed are 1 to {size // world}"
            raise UserError(f"batch_size={batch_size} on {world} process(es) with {size} items: {allowed}")
        if start < 0 or not 0 <= rank < world:
            raise UserError(f"start={start}, rank={rank}, world={world}: need start >= 0 and 0 <= rank < world")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.start, self.stop = start, stop
        self.rank, self.world = rank, world

    @property
    def per_epoch(self) -> int:
        """Whole batches in one pass over the data."""
        return self.size // (self.batch_size * self.world)

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[Tensor]:
        epoch, items = -1, torch.empty(0, dtype=torch.long)
        span = self.batch_size * self.world
        for step in range(self.start, self.stop):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                items = permutation(self.size, self.seed, epoch)
            first = step % self.per_epoch * span
            yield items[first + self.rank : first + span : self.world]


class GroupedOrder:
    """The batches of ``order`` joined in groups: index tensors of up to ``group`` batches, cut at multiples of it.

    Only the first group after a resume and the last of the run may be shorter, so groups end at the same steps however
    often a run was interrupted; ``stop`` counts groups from the run's beginning.
    """

    def __init__(self, order: BatchOrder, group: int) -> None:
        self.order, self.group = order, group
        self.stop = -(-order.stop // group)

    def __len__(self) -> int:
        return self.stop - self.order.start // self.group

    def __iter__(self) -> Iterator[Tensor]:
        joined = []
        for step, index in enumerate(self.order, self.order.start):
            joined.append(index)
            if (step + 1) % self.group == 0 or step + 1 == self.order.stop:
                yield torch.cat(joined)
                joined = []


class SequentialOrder:
    """All items once, in their own order: index tensors of ``batch_size``, the last of them possibly shorter.

    The ranks take the stripes ``rank, rank + world, ...``: disjoint, and nothing is counted twice.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.index = torch.arange(rank, size, world)
        self.batch_size = batch_size
        self.stop = -(-len(self.index) // batch_size)

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.index.split(self.batch_size)) if self.stop else iter(())
