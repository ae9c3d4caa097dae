"""Decoded images in a memory-mapped file, written once: for folders that are larger than memory."""

import errno
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from litdiffusion.errors import UserError

IMAGES, CHECKSUMS, COMPLETE = "images.u8", "checksums.u32", "complete.json"
"""Files of a folder: the images one after the other, a CRC-32 of each, and the size and time of what is whole."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without locks, such as some network file systems."""
CHUNK = 512
"""How many images are decoded before they and their checksums are put on the disk for good."""
Decode = Callable[[int], Tensor]


def decoded(folder: Path, count: int, shape: Sequence[int], decode: Decode, name: str) -> Tensor:
    """``count`` images (N, *shape), uint8, mapped from ``folder``; those that it lacks are decoded and written first.

    A process that is killed while it writes loses at most `CHUNK` images: the next one goes on. Other processes wait
    until all are written. The checksums are verified when the file is not the one that was written here (its size or
    time of change differs), e.g. after a copy; a damaged file is named in a warning and written anew.

    Args:
        folder: folder of this set alone.
        count: number of images.
        shape: (C, H, W).
        decode: number of an image -> uint8 (C, H, W); called by threads.
        name: name of the set in messages.

    Raises:
        UserError: a disk that has no room, cannot be written, or has no locks.
    """
    item = prod(shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A soft lock would outlive a killed process, and the next one would wait for it for ever.
        with FileLock(folder / "lock", fallback_to_soft=False):
            if not _is_whole(folder, count, item):
                _check_room(folder, count * item, name)
                _write(folder, count, item, decode, name)
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise UserError(
                f"data.cache: the file system of {folder} has no locks ({error.strerror}), so two processes could "
                f"write the decoded images at once; set data.cache to a folder on a local disk of each machine"
            ) from error
        raise UserError(
            f"the decoded images of {name} cannot be written to {folder} ({error.strerror}); free some space, or set "
            f"data.cache=null to decode them at every access"
        ) from error
    return torch.from_file(str(folder / IMAGES), size=count * item, dtype=torch.uint8).view(count, *shape)


def is_written(folder: Path) -> bool:
    """Whether `decoded` has nothing left to write, so far as the folder says."""
    return (folder / COMPLETE).exists()


def _write(folder: Path, count: int, item: int, decode: Decode, name: str) -> None:
    """Appends the images that are missing, whole chunks at a time: first images, then their checksums."""
    images, checksums = folder / IMAGES, folder / CHECKSUMS
    done = min(_size(images) // item, _size(checksums) // 4)
    for path, size in ((images, item), (checksums, 4)):
        with path.open("ab") as file:
            file.truncate(done * size)  # a chunk that was not finished
    with (
        images.open("ab") as pixels,
        checksums.open("ab") as sums,
        ThreadPoolExecutor() as pool,
        tqdm(total=count, initial=done, desc=f"decoding {name}", unit="image", leave=False, disable=None) as bar,
    ):
        for start in range(done, count, CHUNK):
            found = list(pool.map(decode, range(start, min(start + CHUNK, count))))
            _put(pixels, b"".join(image.numpy().tobytes() for image in found))
            _put(sums, np.array([zlib.crc32(image.numpy()) for image in found], dtype="<u4").tobytes())
            bar.update(len(found))
    (folder / COMPLETE).write_text(json.dumps(_stamp(images)))


def _put(file, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _is_whole(folder: Path, count: int, item: int) -> bool:
    """Whether all images are there and undamaged; removes what is damaged."""
    if not is_written(folder):
        return False
    images, checksums = folder / IMAGES, folder / CHECKSUMS
    if (_size(images), _size(checksums)) == (count * item, 4 * count):
        if (folder / COMPLETE).read_text() == json.dumps(_stamp(images)):
            return True
        if all(ours == theirs for ours, theirs in zip(_checksums(images, item), _stored(checksums), strict=True)):
            (folder / COMPLETE).write_text(json.dumps(_stamp(images)))
            return True
    warnings.warn(f"{images} is damaged; its images are decoded anew", stacklevel=2)
    for path in (folder / COMPLETE, images, checksums):
        path.unlink(missing_ok=True)
    return False


def _checksums(images: Path, item: int) -> Iterator[int]:
    with images.open("rb") as file:
        while data := file.read(item):
            yield zlib.crc32(data)


def _stored(checksums: Path) -> Iterator[int]:
    return iter(np.frombuffer(checksums.read_bytes(), dtype="<u4").tolist())


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_room(folder: Path, needed: int, name: str) -> None:
    needed -= _size(folder / IMAGES)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the decoded images of {name} need {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB left; "
            f"set data.cache to a folder on a larger disk, a smaller data.image_size, or data.cache=null to decode "
            f"them at every access"
        )
