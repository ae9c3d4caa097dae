"""Any set of images of the library ``datasets``: from the Hugging Face hub, from a folder, or as a stream."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from litdiffusion.data import pixels
from litdiffusion.data.augment import augment_of
from litdiffusion.data.base import DataModule, check_at_least, hold_out
from litdiffusion.data.batch import Batch
from litdiffusion.data.changes import changes
from litdiffusion.data.first_items import MAX_BYTES, MAX_IMAGES
from litdiffusion.data.folders import counted
from litdiffusion.data.hub_columns import (
    Columns,
    Rows,
    chosen_columns,
    class_labels,
    decoded,
    stored_file,
    undecoded,
    with_names,
)
from litdiffusion.data.hub_source import HubSource, Splits
from litdiffusion.data.image_folder import LOOKED_AT
from litdiffusion.data.picture_sizes import check_channels, checked_size, header_in, shape_like
from litdiffusion.data.pixels import Pixels
from litdiffusion.data.stored import Header, opened
from litdiffusion.data.streams import StreamLoader
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError, listed

AUTO, TEST = "auto", "test"
MOST_STREAMED = 10_000
"""How many test images of a stream are read."""


class HuggingFaceSet(DataModule):
    """A set of images with class labels, or without.

    Up to ``memory_limit_gb`` (10⁹ bytes, decoded) it is decoded into memory; a larger one stays in the library's Arrow
    files and is decoded batch by batch by ``num_workers`` processes. ``streaming`` reads it item by item instead, from
    the hub or the folder, and keeps nothing on the disk: its order is that of a shuffle buffer, its first items stand
    for all in pictures, metrics and facts, and without ``val_split`` its first ``val_size`` stored items are held out.

    Args:
        name, path, config_name, revision: see `HubSource`.
        split: the training items, in the library's words, such as "train" or "train[:10%]".
        val_split: split of the validation items, of which ``val_size`` are taken; None: held out of ``split``.
        test_split: "auto": the split "test", if there is one, else the validation items.
        image_column: column of the images; "auto": the only one.
        label_column: column of the classes, a ``ClassLabel``, texts or numbers; "auto": the only ``ClassLabel``, or
            none; None: no classes.
        image_size, channels, value_range, background: as of `ImageFolder`, but None is the first image's size and
            channels.
        augment, batch_size, val_size, seed: see `DataModule`.
        memory_limit_gb: size of the largest set that is kept in memory.
        num_workers: processes, or threads of a stream, that decode.
        streaming: read item by item.
        shuffle_buffer: items among which a stream draws the next one; 1: stored order.

    Raises:
        UserError: a set, split or column that cannot be used.
    """

    value_range = BYTES

    def __init__(
        self,
        *,
        name: str | None = None,
        path: str | Path | None = None,
        config_name: str | None = None,
        revision: str | None = None,
        split: str = "train",
        val_split: str | None = None,
        test_split: str | None = AUTO,
        image_column: str = AUTO,
        label_column: str | None = AUTO,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        value_range: Sequence[float] | None = None,
        background: str | Sequence[int] | None = None,
        augment: Mapping[str, Any] | None = None,
        batch_size: int,
        val_size: int = 2_000,
        seed: int,
        memory_limit_gb: float = 4.0,
        num_workers: int = 2,
        streaming: bool = False,
        shuffle_buffer: int = 1_000,
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        check_channels(channels)
        check_at_least("memory_limit_gb", memory_limit_gb, 0)
        check_at_least("num_workers", num_workers, 0)
        check_at_least("shuffle_buffer", shuffle_buffer, 1)
        folder = None if path is None else Path(path).expanduser()
        self.source = HubSource(name, folder, config_name, revision, streaming)
        self.split, self.val_split, self.test_split = split, val_split, test_split
        self._asked_columns, self.shuffle_buffer = (image_column, label_column), shuffle_buffer
        self.image_size, self.channels, self.memory_limit_gb = checked_size(image_size), channels, memory_limit_gb
        file_range = pixels.checked_range(value_range)
        ranges = {} if file_range is None else {"ranges": pixels.ranges_of(file_range)}
        self._pixels = Pixels(background=pixels.colour_of(background), **ranges)
        self._augment_settings, self.requested_workers = augment, num_workers
        self.complete = not streaming
        self._in_memory = False
        self._notes: list[str] = []

    @property
    def name(self) -> str:
        """Name of the set in lower case, with hyphens instead of characters other than letters and digits."""
        name = self.source.name or self.source.path.resolve().name
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "images"

    @property
    def num_workers(self) -> int:
        """Number of worker processes; 0 if the images are decoded already, or streamed."""
        return 0 if self._in_memory or self.source.streaming else self.requested_workers

    @property
    def num_training_items(self) -> int | None:
        """Number of training items; of a stream what the set says, None if it says nothing."""
        return self._stream_count if self.source.streaming else len(self.train.data)

    def read(self) -> tuple[Batch, Batch]:
        """The training items, or the first ones of a stream, and the validation items; sets the set's facts."""
        rows = self._opened(self.split, "data.split")
        first = next(iter(rows), None)
        if first is None:
            raise UserError(f"{self.source.shown} has no items in data.split={self.split}; take another split")
        with stored_file(first[self.columns.image], "of item 0") as file, opened(file, "of item 0") as image:
            self.shape = shape_like(image, self.image_size, self.channels)
        self.augment = augment_of(self._augment_settings, self.shape)
        return self._read_stream(rows) if self.source.streaming else self._read_rows(rows)

    def notes(self) -> list[str]:
        """The columns, the counts and classes, how images became bytes, and the splits that are not used."""
        label = f", classes in {self.columns.label}" if self.num_classes else ", without classes"
        used = re.split(r"[+ ]|\[[^]]*\]", f"{self.split} {self.val_split} {self._test_name}")
        unused = [name for name in self._splits.whole if name not in used]
        others = [f"splits that are not used: {listed(unused)} (data.val_split, data.test_split)"] if unused else []
        return [f"{self.source.shown}: images in {self.columns.image}{label}", *super().notes(), *self._notes, *others]

    def test(self) -> Batch:
        """The test split with its class labels; the validation items if there is none."""
        self.load()
        if self._test_name is None:
            return self.val
        rows = self._opened(self._test_name, "data.test_split")
        if self.source.streaming:
            return self._decoded_items(list(islice(iter(rows), min(MOST_STREAMED, self._most()))))
        return self._part(rows, torch.arange(len(rows)))

    def train_dataloader(self) -> DataLoader | StreamLoader:
        """Whole batches of one epoch: shuffled as those of every `DataModule`, or in a stream's order."""
        if not self.source.streaming:
            return super().train_dataloader()
        decode = self._decoded_items
        if self._chosen:
            decode = lambda items, pool: self._with_conditions(self._decoded_items(items, pool))  # noqa: E731
        count, threads = self._stream_count, self.requested_workers
        return StreamLoader(self._stream, decode, self.batch_size, self._position, self._rank_and_world, count, threads)

    @cached_property
    def _splits(self) -> Splits:
        return Splits(self.source)

    @property
    def _test_name(self) -> str | None:
        if self.test_split != AUTO:
            return self.test_split
        return TEST if TEST in self._splits.whole and TEST not in (self.split, self.val_split) else None

    def _opened(self, split: str, key: str) -> Any:
        """A split whose images are not decoded; the first one decides which columns are read."""
        rows, shown = self._splits.split(split, key), self.source.shown
        if not hasattr(self, "columns"):
            columns = chosen_columns(rows.features, *self._asked_columns, shown)
            if self.source.streaming and columns.label is not None and not columns.names:
                raise UserError(
                    f"data.label_column={columns.label}: a stream does not say which classes follow; cast it to a "
                    f"ClassLabel and save the set anew, or set data.label_column=null"
                )
            self.columns: Columns = columns if self.source.streaming else with_names(rows, columns, shown)
            self.class_names = self.columns.names
            self.num_classes = len(self.class_names)
        return undecoded(rows, self.columns)

    def _read_rows(self, rows: Any) -> tuple[Batch, Batch]:
        if self.val_split is None:
            others, (train, val) = rows, hold_out(len(rows), self.val_size)
        else:
            others, train = self._opened(self.val_split, "data.val_split"), torch.arange(len(rows))
            size = len(others)
            val = hold_out(size, self.val_size)[1] if self.val_size < size else torch.arange(size)
        self._rows = rows, others
        self._in_memory = (len(train) + len(val)) * prod(self.shape) <= self.memory_limit_gb * 1e9
        seen = range(0, len(rows), 1 if self._in_memory else -(-len(rows) // LOOKED_AT))
        with ThreadPoolExecutor() as pool:
            headers = list(pool.map(lambda row: self._header(rows[row][self.columns.image], f"of row {row}"), seen))
        self._notes = changes(headers, self.shape, self._pixels, "" if self._in_memory else " of those looked at")
        parts = self._part(rows, train), self._part(others, val)
        if parts[0].class_label is None:
            if self.columns.label is not None:
                self._notes.append(f"no image has a class label in {self.columns.label}, so the set has no classes")
            self.num_classes, self.class_names = 0, ()
            parts = tuple(part._replace(class_label=None) for part in parts)
        return parts

    def _part(self, rows: Any, index: Tensor) -> Batch:
        images = Rows(rows, index, self.columns.image, self.shape, self._pixels, self.source.shown)
        labels = class_labels(rows, self.columns, self.source.shown) if self.num_classes else None
        kept = images.decode_all() if len(index) * prod(self.shape) <= self.memory_limit_gb * 1e9 else images
        return Batch(kept, None if labels is None else labels[index])

    def _header(self, value: Any, name: str) -> Header:
        with stored_file(value, name) as file, opened(file, name) as image:
            return header_in(image, self.shape, self.image_size, f"{self.source.shown}: the image {name}")

    def _read_stream(self, rows: Any) -> tuple[Batch, Batch]:
        others = rows if self.val_split is None else self._opened(self.val_split, "data.val_split")
        val = list(islice(iter(others), self.val_size))
        held_out = self.val_size if self.val_split is None else 0
        known = (rows.info.splits or {}).get(self.split)
        self._stream_count = known.num_examples - held_out if known is not None and known.num_examples else None
        order = fold_seed(self.seed, "order of a stream")
        self._stream = (rows.skip(held_out) if held_out else rows).shuffle(order, buffer_size=self.shuffle_buffer)
        self._stream.set_epoch(0)
        first = list(islice(iter(self._stream), min(MAX_IMAGES, self._most())))
        if not first or not val:
            raise UserError(f"{self.source.shown}: data.val_size={self.val_size} leaves no item to train on; lower it")
        headers = [self._header(row[self.columns.image], f"{i} of the stream") for i, row in enumerate(first)]
        size = "an unknown number of" if self._stream_count is None else str(self._stream_count)
        self._notes = [
            f"a stream of {size} training images: pictures, facts and metrics are of {len(first)} of them, "
            f"{counted(len(val), 'image')} {'are held out from its beginning' if held_out else f'of {self.val_split}'}",
            *changes(headers, self.shape, self._pixels, " of those looked at"),
        ]
        return self._decoded_items(first), self._decoded_items(val)

    def _most(self) -> int:
        """How many decoded images of a stream are kept at most."""
        return max(1, MAX_BYTES // prod(self.shape))

    def _decoded_items(self, items: list[Any], pool: ThreadPoolExecutor | None = None) -> Batch:
        """Rows of a stream as images (B, C, H, W) and classes (B,)."""
        each = map if pool is None else pool.map
        name = f"in a stream of {self.source.shown}"
        images = each(lambda row: decoded(row[self.columns.image], self.shape, self._pixels, name), items)
        labels = [row[self.columns.label] for row in items] if self.num_classes else None
        if labels is not None and any(label is None or label < 0 for label in labels):
            raise UserError(f"{self.source.shown}: an image without a class label; set data.label_column=null")
        return Batch(torch.stack(list(images)), None if labels is None else torch.tensor(labels))

    def _position(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 0
        return 0 if self.trainer.overfit_batches else self.trainer.current_epoch, self._batches_done()

    def _digest(self) -> str:
        if isinstance(self.train.data, Tensor) and isinstance(self.val.data, Tensor):
            return super()._digest()
        # The library's fingerprints, because the decoded images do not fit in memory.
        prints = [rows._fingerprint for rows in self._rows]
        return hashlib.sha256(json.dumps([prints, self.shape, self.val_size]).encode()).hexdigest()
