"""Whether a checkpoint file is a plain archive of tensors, looked at before anything is unpacked."""

import pickletools
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litdiffusion.errors import UserError, first_line

LARGEST_PICKLE = 64 * 2**20
"""Bytes of the part that describes the tensors: a checkpoint of ten thousand tensors has three million."""
GLOBALS = {
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict", "torch Size"),
    *("torch device", "__builtin__ set", "__builtin__ complex", "collections Counter"),
    *("torch._utils _rebuild_tensor_v3", "torch.storage UntypedStorage", "torch.serialization _get_layout"),
    "_codecs encode",
}
"""Beside storages and dtypes, what that part may name: all that a run writes. A byte array takes memory at once."""
MOST_VALUES = 10_000_000
"""Bound on the values of a checkpoint, each counted as often as it is held."""


def check_archive(path: Path) -> None:
    """Refuses an archive that would take more memory than it has bytes.

    Raises:
        UserError: a file that is no zip archive, is compressed, holds bytes twice, or names more than tensors need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise UserError(f"{path} is compressed, which no checkpoint is; do not use the file")
            # Entries may overlap, so that a small file holds many large ones.
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise UserError(f"{path} is larger inside than outside; do not use the file")
            pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
            if sum(entry.file_size for entry in pickles) > LARGEST_PICKLE:
                raise UserError(f"{path} describes more tensors than any checkpoint has; do not use the file")
            for entry in pickles:
                _check_globals(archive.read(entry), path)
    except UserError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, IndexError) as error:
        raise UserError(damage_message(path, first_line(error)[:120])) from error


def damage_message(path: Path, reason: str) -> str:
    """The message for a file that cannot be read."""
    return (
        f"{path} cannot be read as a checkpoint ({reason}); it is damaged or was not written by litdiffusion; take "
        f"another file of the same folder"
    )


def check_content(content: Any, path: Path) -> None:
    """Refuses values that are larger than the bytes behind them: lists in themselves, tensors with a stride of 0."""
    pending, count, claimed = [content], 0, 0
    storages: dict[int, int] = {}
    while pending:
        value = pending.pop()
        inner: Collection[Any] = ()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            claimed += value.nbytes
            if value.nbytes > storage.nbytes():
                raise UserError(f"{path} holds a tensor that is larger than its bytes; do not use the file")
        elif isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, list | tuple):
            inner = value
        count += 1 + len(inner)
        if count > MOST_VALUES:
            raise UserError(f"{path} holds more values than any checkpoint; do not use the file")
        pending += inner
    # Weights may be shared by a few names, but not by thousands.
    if claimed > 2**20 + 8 * sum(storages.values()):
        raise UserError(f"{path} holds tensors that are together larger than their bytes; do not use the file")


def _check_globals(data: bytes, path: Path) -> None:
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "STACK_GLOBAL":  # a name that is only known when it is read, and that torch never writes
            raise UserError(f"{path} holds a pickle that torch did not write; do not use the file")
        if operation.name not in ("GLOBAL", "INST"):
            continue
        name = str(argument)
        if name not in GLOBALS | _user_globals() and not _is_type_of_torch(name):
            raise UserError(
                f"{path} names {name.replace(' ', '.')[:80]}, which no checkpoint does; do not use the file"
            )


def _user_globals() -> set[str]:
    """The names that this process allowed by ``torch.serialization.add_safe_globals``."""
    entries = torch.serialization.get_safe_globals()
    names = (e[1] if isinstance(e, tuple) else f"{e.__module__}.{e.__name__}" for e in entries)
    return {" ".join(name.rsplit(".", 1)) for name in names}


def _is_type_of_torch(name: str) -> bool:
    """Whether this is a storage or a dtype."""
    module, _, attribute = name.partition(" ")
    kinds = ("float", "bfloat", "int", "uint", "complex", "bool")
    return module == "torch" and (attribute.endswith("Storage") or attribute.startswith(kinds))
