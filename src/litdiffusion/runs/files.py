"""Files that survive a kill and a power cut: replaced atomically, and with a checksum at the end if sealed."""

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = b"litdiffusion sha256 "
SEAL = len(MARK) + 64
"""Length in bytes of a seal: the SHA-256 of a zip archive, stored as the comment that ends the archive."""


def write_atomically(path: Path, data: bytes | memoryview, keep: Path | None = None) -> None:
    """Replaces ``path`` by ``data``; a reader sees the old or the new content, never a part of it.

    A link at ``path`` is replaced, the file that it names is not changed.

    If ``keep`` is given, the old file is renamed to it first. Between the two renames ``path`` is absent, and ``keep``
    holds the old content.

    Raises:
        OSError: if the disk is full; all files are then unchanged.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.part")
    with named(path):
        try:
            new.unlink(missing_ok=True)
            with new.open("xb") as file:  # never through a link that lies there
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(new, path)
        finally:
            with contextlib.suppress(OSError):  # because the first error says more
                new.unlink(missing_ok=True)
        _sync_folder(path.parent)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Puts the file's path into every OSError of the block, because the errors of write() and fsync() name no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def set_aside(path: Path, name: str | None = None) -> Path:
    """Renames a damaged file or folder to the first free of ``NAME.damaged``, ``NAME.damaged_2``, ...; returns it."""
    kept = fresh(path.with_name(f"{name or path.name}.damaged"))
    path.rename(kept)
    return kept


def fresh(path: Path) -> Path:
    """``path`` if nothing is there, else the first of ``path_2``, ``path_3``, ... where nothing is."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}_{number}")
    return candidate


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces ``path`` by a csv with these columns, see `write_atomically`; a missing cell is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_picture(path: Path, picture: "Image") -> None:
    """Replaces ``path`` by a png of the picture, see `write_atomically`."""
    archive = io.BytesIO()
    picture.save(archive, "PNG", compress_level=4)  # half the time of the default for a tenth more bytes
    write_atomically(path, archive.getbuffer())


def write_arrays(path: Path, **arrays: Any) -> None:
    """Replaces ``path`` by a compressed npz of these arrays, see `write_atomically`."""
    import numpy as np

    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    write_atomically(path, archive.getbuffer())


def sync(path: Path) -> None:
    """Returns after the content of a file is on the disk.

    Raises:
        OSError: if the disk is full.
    """
    with named(path), path.open("rb") as file:
        os.fsync(file.fileno())


def seal(archive: io.BytesIO) -> None:
    """Appends the SHA-256 of a zip archive as its comment; the archive must have none, and stays a valid zip file."""
    with archive.getbuffer() as view:
        if view[-2:] != b"\0\0":
            raise ValueError("only a zip archive without a comment can be sealed")
        view[-2:] = SEAL.to_bytes(2, "little")
        digest = hashlib.sha256(view).hexdigest()
    archive.seek(0, io.SEEK_END)
    archive.write(MARK + digest.encode())


def is_sealed(path: Path) -> bool:
    """Whether the file ends with a checksum, right or wrong; files of other programs have none."""
    return MARK in _tail(path)


def seal_fits(path: Path) -> bool:
    """Whether the file is intact: it ends with a checksum that fits all of its content."""
    tail = _tail(path)
    if not tail.startswith(MARK):
        return False
    digest, left = hashlib.sha256(), path.stat().st_size - SEAL
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest().encode() == tail[len(MARK) :]


def remove_parts(folder: Path) -> None:
    """Removes temporary files of a killed writer in a run's folder, at any depth; no other process may be writing."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SEAL))
        return file.read()


def _sync_folder(folder: Path) -> None:
    """Writes the folder's entries to the disk, because a power cut may also lose the names of files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
