"""Any folder of pictures as a data set: decoded once into memory, or into a memory-mapped file."""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litdiffusion.data import pixels, stored
from litdiffusion.data.augment import augment_of
from litdiffusion.data.base import DataModule, check_at_least, hold_out
from litdiffusion.data.batch import Batch
from litdiffusion.data.changes import changes
from litdiffusion.data.decoded import decoded, is_written
from litdiffusion.data.folders import Listing, counted, list_pictures
from litdiffusion.data.identity import Identity
from litdiffusion.data.image_files import ImageFiles
from litdiffusion.data.picture_sizes import check_channels, checked_size
from litdiffusion.data.pixels import Pixels, decode
from litdiffusion.data.stored import BYTE, Header
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.errors import UserError

LOOKED_AT = 256
"""How many pictures of a set that is too large for memory are looked at to decide how values become bytes."""
DARKEST = 15
"""A set of bytes whose largest value is at most this leaves a doubt about its range."""


class ImageFolder(DataModule):
    """All pictures below ``path``, cropped to ``image_size`` (side, or [height, width]), see `pixels.fitted`.

    Links are followed. If every picture lies in a first-level subfolder, these subfolders are the classes, in
    alphabetical order with numbers as numbers; otherwise the set has no classes. A set of up to ``memory_limit_gb``
    (10⁹ bytes, decoded) is decoded into memory. A larger set is decoded into a memory-mapped file below ``cache``
    before training begins (see `decoded`), or without a ``cache`` batch by batch by ``num_workers`` processes. Batches
    are the same. Validation items are held out of the folder.

    Args:
        path: folder of the images.
        image_size: side in pixels, or [height, width].
        channels: 1 for grey, 3 for colour, 4 for colour with alpha.
        value_range: smallest and largest value that the files may hold, [0, 4095] for 12 bits; None: found from the
            values of the set, see `pixels.known_range`.
        background: colour under transparent pixels, see `pixels.colour_of`; None: white.
        augment: changes of training images, see `Augment`.
        batch_size, val_size, seed: see `DataModule`.
        memory_limit_gb: size of the largest set that is kept in memory.
        cache: folder for the decoded images of larger sets; None: they are decoded at every access.
        num_workers: number of processes that decode them then.

    Raises:
        UserError: for a missing or empty folder, sizes out of range, an unreadable picture, or values whose range
            cannot be known.
    """

    value_range = BYTES

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int | Sequence[int],
        channels: int = 3,
        value_range: Sequence[float] | None = None,
        background: str | Sequence[int] | None = None,
        augment: Mapping[str, Any] | None = None,
        batch_size: int,
        val_size: int = 2_000,
        seed: int,
        memory_limit_gb: float = 2.0,
        cache: str | Path | None = None,
        num_workers: int = 2,
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        check_channels(channels)
        check_at_least("memory_limit_gb", memory_limit_gb, 0)
        check_at_least("num_workers", num_workers, 0)
        self.path, self.shape = Path(path).expanduser(), (channels, *checked_size(image_size))
        self.memory_limit_gb, self.requested_workers = memory_limit_gb, num_workers
        self.file_range, self.background = pixels.checked_range(value_range), pixels.colour_of(background)
        self.augment = augment_of(augment, self.shape)
        self.cache = None if cache is None else Path(cache).expanduser()
        self._mapped = False
        self._notes: list[str] = []

    @cached_property
    def listing(self) -> Listing:
        """The pictures below ``path``, see `list_pictures`."""
        return list_pictures(self.path)

    @property
    def paths(self) -> list[Path]:
        """Paths of the pictures relative to ``path``, sorted, without hidden files."""
        return self.listing.paths

    @property
    def class_names(self) -> list[str]:
        """Names of the first-level subfolders if every picture lies in one, else an empty list."""
        return self.listing.class_names

    @property
    def why_no_classes(self) -> str | None:
        """Why a folder with subfolders has no classes, with the remedy; else None."""
        return self.listing.why_no_classes

    @property
    def name(self) -> str:
        """Name of the folder in lower case, with hyphens instead of characters other than letters and digits."""
        return re.sub(r"[^a-z0-9]+", "-", self.path.resolve().name.lower()).strip("-") or "images"

    @property
    def num_classes(self) -> int:
        """Number of classes; lists the folder, so it may raise the folder's errors."""
        return len(self.class_names)

    @property
    def num_workers(self) -> int:
        """Number of worker processes; 0 if the images are decoded already."""
        return 0 if self.in_memory or self._mapped else self.requested_workers

    @property
    def in_memory(self) -> bool:
        """Whether the decoded set is within the memory limit."""
        return len(self.paths) * prod(self.shape) <= self.memory_limit_gb * 1e9

    def prepare_data(self) -> None:
        """Lightning's hook for one process of each machine: writes the file of decoded images, if it is needed."""
        self.load()
        if self.cache is not None and not self.in_memory:
            self._decoded()

    def setup(self, stage: str) -> None:
        """Lightning's hook for every process: reads from that file from now on."""
        super().setup(stage)
        if self.cache is not None and not self.in_memory and not self._mapped:
            images = self._decoded().split([len(part.data) for part in (self.train, self.val)])
            self.train, self.val = (
                part._replace(data=data) for part, data in zip((self.train, self.val), images, strict=True)
            )
            self._mapped = True

    def _decoded(self) -> Tensor:
        """All images in the order of `train` and `val`, mapped from a file of their own."""
        parts = [part.data for part in self._read]
        paths = [path for part in parts for path in part.paths]
        files = [(path, (found := Path(path).stat()).st_size, found.st_mtime_ns) for path in paths]
        key = hashlib.sha256(json.dumps([files, self.shape, str(self._pixels)]).encode()).hexdigest()[:16]
        folder = self.cache / f"{self.name}-{key}"
        if not is_written(folder):
            size = len(paths) * prod(self.shape) / 1e9
            print(f"decoding {self.name} once, into {folder} ({size:.2g} GB)", flush=True)
        return decoded(folder, len(paths), self.shape, lambda i: decode(paths[i], self.shape, self._pixels), self.name)

    def read(self) -> tuple[Batch, Batch]:
        """Training and validation items: uint8 tensors, or `ImageFiles` if the decoded set exceeds the memory limit."""
        train, val = hold_out(len(self.paths), self.val_size)
        seen = self._files(self.paths if self.in_memory else _evenly(self.paths, LOOKED_AT))
        with ThreadPoolExecutor() as pool:
            headers = list(pool.map(stored.header, seen))
        self._pixels = Pixels(self._ranges(seen, headers), self.background)
        looked_at = "" if self.in_memory else f" of the {len(headers)} looked at"
        self._notes = [*self.listing.notes, *changes(headers, self.shape, self._pixels, looked_at)]
        parts = self._batch_of(train), self._batch_of(val)
        if self.file_range is None:
            self._check_bytes([part.data for part in parts], seen, headers)
        return parts

    def notes(self) -> list[str]:
        """The counts and classes, what was left out and how pictures became bytes."""
        counts = [] if self.class_names else [f"{counted(len(self.paths), 'image')} without classes"]
        return [*counts, *super().notes(), *self._notes]

    def identity(self) -> Identity:
        """Names, sizes in bytes and, for a decoded set, checksums of the pictures, in their order."""
        self.load()
        checksums = dict.fromkeys(range(len(self.paths)), "")
        if self.in_memory:
            for index, part in zip(hold_out(len(self.paths), self.val_size), (self.train, self.val), strict=True):
                checksums |= {i: f"{zlib.crc32(x.numpy()):08x}" for i, x in zip(index.tolist(), part.data, strict=True)}
        rows = [f"{path.as_posix()}\t{self._size(path)}\t{checksums[i]}" for i, path in enumerate(self.paths)]
        return Identity.of_rows("images", len(self.train.data), len(self.val.data), rows, self.class_names)

    def _digest(self) -> str:
        if self.in_memory:
            return super()._digest()
        # File names and sizes, because the decoded images do not fit in memory.
        files = [(file.as_posix(), self._size(file)) for file in self.paths]
        return hashlib.sha256(json.dumps([files, self.shape, self.val_size]).encode()).hexdigest()

    def _size(self, path: Path) -> int:
        return (self.path / path).stat().st_size

    def _files(self, paths: Sequence[Path]) -> list[str]:
        return [str(self.path / path) for path in paths]

    def _batch_of(self, index: Tensor) -> Batch:
        paths = [self.paths[i] for i in index.tolist()]
        class_index = {name: i for i, name in enumerate(self.class_names)}
        class_label = torch.tensor([class_index[file.parts[0]] for file in paths]) if class_index else None
        files = ImageFiles(self._files(paths), self.shape, self._pixels)
        return Batch(files.decode_all() if self.in_memory else files, class_label)

    def _ranges(self, files: list[str], headers: list[Header]) -> dict[str, stored.Range]:
        """The range of each kind of file, from its values or from ``data.value_range``."""
        if self.file_range is not None:
            return pixels.ranges_of(self.file_range)
        ranges = dict(Pixels().ranges)
        for kind in sorted({header.kind for header in headers} - {BYTE}):
            chosen = [file for file, header in zip(files, headers, strict=True) if header.kind == kind]
            ranges[kind] = self._range_of(kind, chosen)
        return ranges

    def _range_of(self, kind: str, files: list[str]) -> stored.Range:
        with ThreadPoolExecutor() as pool:
            ends = list(pool.map(stored.extrema, files))
        if (pair := pixels.unlike_ranges(kind, ends)) is not None:
            (a, (_, top)), (b, (_, other_top)) = ((Path(files[i]).relative_to(self.path), ends[i]) for i in pair)
            raise UserError(
                f"data.path={self.path}: {kind} pictures of unlike ranges ({a} has values up to {top:g}, {b} up to "
                f"{other_top:g}); scale them alike, or set data.value_range to one range that is meant for all"
            )
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        found = pixels.known_range(kind, low, high)
        if found is None:
            first = Path(files[0]).relative_to(self.path)
            remedy = f"set data.value_range={pixels.likely_range(low, high)}, the smallest and largest possible value"
            if kind == stored.HIGH_BYTE:
                remedy = "only the high bytes of such files can be read; save them as PNG"
            raise UserError(
                f"data.path={self.path}: {counted(len(files), 'picture')} ({kind}, first {first}) "
                f"{'has' if len(files) == 1 else 'have'} values from {low:g} to {high:g}, which leaves their range "
                f"unknown; {remedy}"
            )
        return found

    def _check_bytes(self, parts: list[Any], files: list[str], headers: list[Header]) -> None:
        """Refuses bytes that are nearly black, such as masks of 0 and 1, because their range cannot be known."""
        chosen = [i for i, header in enumerate(headers) if header.kind == BYTE and not header.alpha]
        if 2 * len(chosen) < len(files):
            return  # a dark picture among others of another kind is no doubt
        if self.in_memory:
            order = torch.cat(hold_out(len(self.paths), self.val_size))
            brightest = torch.cat([part[:, :3].flatten(1).amax(1) for part in parts])[order.argsort()][chosen]
        else:
            brightest = torch.stack([decode(files[i], self.shape, self._pixels)[:3].max() for i in chosen])
        if not 0 < int(brightest.max()) <= DARKEST:
            return
        with ThreadPoolExecutor() as pool:
            high = max(high for _, high in pool.map(stored.extrema, [files[i] for i in chosen]))
        if high <= DARKEST:
            likely = pixels.likely_range(0, high)
            raise UserError(
                f"data.path={self.path}: the values of {counted(len(chosen), 'picture')} lie from 0 to {high:g} of "
                f"255, which leaves their range unknown; set data.value_range={likely} to spread them, or [0,255] to "
                f"keep them"
            )


def _evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of the paths, evenly spaced."""
    stride = max(1, -(-len(paths) // count))
    return list(paths[::stride])
