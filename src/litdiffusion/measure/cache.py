"""Cached tensors in files.

A file is written atomically, and its checksum is verified when it is read; a damaged file is computed again.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from litdiffusion.data.digest import tensor_digest
from litdiffusion.errors import UserError, first_line
from litdiffusion.runs.files import write_atomically

About = dict[str, str | int | float]

ENTRY = "litdiffusion"
"""The one entry of a file's metadata: JSON with the key, the values about the tensors and the checksum of all."""


class Cached(NamedTuple):
    """The content of a file: ``tensors`` by name, and plain values ``about`` them."""

    tensors: dict[str, Tensor]
    about: About


def key_of(**facts: object) -> str:
    """16 hex digits that change with any of ``facts``, which are plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path, key: str) -> Cached | None:
    """The content of ``path``, or None where the file is absent, damaged or foreign.

    A warning names a damaged or foreign file. safetensors itself has no checksum.
    """
    try:
        if not path.exists():
            return None
        with safe_open(path, "pt") as file:
            # Clones do not change with the file, which safetensors maps into memory.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            entry = json.loads(file.metadata()[ENTRY])
        if entry["key"] != key:
            raise ValueError("its key is of other data or settings")
        if entry["sha256"] != _checksum(tensors, entry["record"], key):
            raise ValueError("its checksum is wrong")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        reason = first_line(error)[:120]
        warnings.warn(f"{path} is damaged or foreign ({reason}); computing it anew", stacklevel=2)
        return None
    return Cached(tensors, entry["record"])


def cached(path: Path, key: str, make: Callable[[], Cached]) -> Cached:
    """The content of ``path``, see `read`; else that of ``make``, which is written there.

    Raises:
        UserError: if the folder cannot be written; before ``make`` is called, unless the disk is full.
    """
    found = read(path, key)
    if found is None:
        _make_folder(path.parent)
        found = make()
        write(path, key, found)
    return found


def write(path: Path, key: str, cached: Cached) -> None:
    """Writes ``cached`` to ``path`` atomically: another process sees the old file, the new one, or none.

    Raises:
        UserError: if the folder cannot be written.
    """
    _make_folder(path.parent)
    tensors = {name: tensor.contiguous() for name, tensor in cached.tensors.items()}
    entry = {"key": key, "record": cached.about, "sha256": _checksum(tensors, cached.about, key)}
    try:
        write_atomically(path, save(tensors, {ENTRY: json.dumps(entry)}))
    except OSError as error:
        raise _unwritable(path, error) from error


def _make_folder(folder: Path) -> None:
    """Makes ``folder`` and checks that it can be written.

    Raises:
        UserError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise _unwritable(folder, PermissionError("no permission"))


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be written ({first_line(error)}); set metrics.cache, or codec.cache of latents, to a folder "
        f"that can"
    )


def _checksum(tensors: dict[str, Tensor], about: About, key: str) -> str:
    text = json.dumps([key, about], sort_keys=True)
    return hashlib.sha256((tensor_digest(tensors) + text).encode()).hexdigest()
