"""Files of tensors that took long to compute: whole or absent, checked when read, written anew where damaged."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import torch
from torch import Tensor

from litdiffusion.data.digest import tensor_digest
from litdiffusion.errors import UserError

Record = dict[str, str | int | float]


class Kept(NamedTuple):
    """What a file holds: ``tensors`` by name, and a ``record`` of plain values about them."""

    tensors: dict[str, Tensor]
    record: Record


def key_of(**facts: object) -> str:
    """16 hex digits that change with any of ``facts``, which are plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path, key: str) -> Kept | None:
    """The content of ``path``, or None where there is none that can be trusted; a bad file is named in a warning."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        kept = Kept(content["tensors"], content["record"])
        if content["key"] != key:
            raise ValueError("it was kept for something else")
        if content["sha256"] != _checksum(kept):
            raise ValueError("its checksum is wrong")
    # The bytes of a damaged file are a program that may fail in any way.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        warnings.warn(f"{path} is damaged or foreign ({reason}); computing it anew", stacklevel=2)
        return None
    return kept


def write(path: Path, key: str, kept: Kept) -> None:
    """Put ``kept`` at ``path`` in one move: another process sees the old file, the new one, or none.

    Errors: `UserError` where the folder cannot be written.
    """
    make_folder(path.parent)
    beside = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    content = {"key": key, "sha256": _checksum(kept), "tensors": dict(kept.tensors), "record": kept.record}
    try:
        with beside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make sure that ``folder`` takes files, before anything long is computed for it (`UserError`)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise _unwritable(folder, PermissionError("no permission"))


def _unwritable(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} cannot be written ({reason}); set the features' cache to a folder that can")


def _checksum(kept: Kept) -> str:
    record: Mapping[str, object] = kept.record
    return hashlib.sha256((tensor_digest(kept.tensors) + json.dumps(record, sort_keys=True)).encode()).hexdigest()
