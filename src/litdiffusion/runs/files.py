"""Files that survive a kill and a power cut: replaced as a whole or not at all, and sealed by a checksum."""

import hashlib
import io
import os
from pathlib import Path

MARK = b"litdiffusion sha256 "
SEAL = len(MARK) + 64
"""Bytes of a seal, which is the comment that every zip archive may end with."""


def write_atomically(path: Path, data: bytes | memoryview, keep: Path | None = None) -> None:
    """Replaces ``path`` by ``data``; whoever opens it at any moment finds the old or the new content, never a part.

    The old file becomes ``keep`` where that is given. Between these two moves ``path`` is absent for an instant and
    ``keep`` holds the old content.

    Errors: OSError of a full disk, which leaves every file as it was.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(new, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a write alone does not say of what
    finally:
        new.unlink(missing_ok=True)
    _sync_folder(path.parent)


def sync(path: Path) -> None:
    """Returns when the content of a file is on the disk.

    Errors: OSError of a full disk.
    """
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def seal(archive: io.BytesIO) -> None:
    """Appends to a zip archive without a comment the checksum of all its bytes, as its comment: it stays a zip."""
    with archive.getbuffer() as view:
        if view[-2:] != b"\0\0":
            raise ValueError("only a zip archive without a comment can be sealed")
        view[-2:] = SEAL.to_bytes(2, "little")
        digest = hashlib.sha256(view).hexdigest()
    archive.seek(0, io.SEEK_END)
    archive.write(MARK + digest.encode())


def is_sealed(path: Path) -> bool:
    """Whether the file ends with a seal, broken or not; files of other programs have none."""
    return MARK in _tail(path)


def seal_fits(path: Path) -> bool:
    """Whether the file ends with a seal that fits: one flipped bit or a missing byte anywhere breaks it."""
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
    """Removes what a killed writer left behind; nobody else may be writing into the folder."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SEAL))
        return file.read()


def _sync_folder(folder: Path) -> None:
    """The names of files are data of their folder, which a power cut loses too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
