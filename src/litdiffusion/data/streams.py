"""Batches of a set that is read item by item from beginning to end, and never kept as a whole."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from litdiffusion.data.batch import Batch
from litdiffusion.data.health import say
from litdiffusion.errors import UserError

Decode = Callable[[list[Any], ThreadPoolExecutor], Batch]


class StreamLoader:
    """The whole batches of one epoch of a stream, in the order of its shuffle buffer.

    The items of an epoch and their order are a pure function of (seed, epoch), so a resumed run needs no state: what it
    has trained on is read once more and passed over, not decoded. Global batch k is the k-th slice of the stream; each
    process reads all of it and decodes every world-th item, so that W processes of B items train what one trains with
    W x B. One batch is read and decoded ahead.

    Args:
        rows: an ``IterableDataset`` that was shuffled with a seed, its images not decoded.
        decode: rows -> `Batch`.
        batch_size: items of a batch, per process.
        position: (epoch, finished batches of it), asked when an iteration begins.
        place: (rank, number of processes), asked likewise.
        count: number of items; None: unknown.
        threads: number of threads that decode.
    """

    def __init__(
        self,
        rows: Any,
        decode: Decode,
        batch_size: int,
        position: Callable[[], tuple[int, int]],
        place: Callable[[], tuple[int, int]],
        count: int | None,
        threads: int,
    ) -> None:
        self.rows, self.decode, self.batch_size = rows, decode, batch_size
        self.position, self.place, self.count, self.threads = position, place, count, threads

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("the length of this stream is not known")
        return self.count // (self.batch_size * self.place()[1])

    def __iter__(self) -> Iterator[Batch]:
        (epoch, done), (rank, world) = self.position(), self.place()
        size = self.batch_size * world
        if done:
            say([f"reading past the {done * size} items of epoch {epoch} that were trained on"])
        self.rows.set_epoch(epoch)
        items = islice(iter(self.rows), done * size, None)

        def following() -> Batch | None:
            chunk = list(islice(items, size))
            return self.decode(chunk[rank::world], pool) if len(chunk) == size else None

        with ThreadPoolExecutor(max(1, self.threads)) as pool, ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(following)
            while (batch := ahead.result()) is not None:
                ahead = reader.submit(following)
                done += 1
                yield batch
        if not done:
            raise UserError(f"data.batch_size={self.batch_size} on {world} process(es) is more than the stream holds")

    # Without these two methods Lightning warns when a run resumes inside an epoch.
    def state_dict(self) -> dict[str, int]:
        """Empty: the order is a function of the epoch and of the number of finished batches."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Does nothing, see `state_dict`."""
