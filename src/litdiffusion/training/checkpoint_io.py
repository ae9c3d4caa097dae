"""Checkpoint files for Lightning: written atomically with a checksum, while the previous file is kept."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from litdiffusion.runs.files import seal, write_atomically
from litdiffusion.training.checkpoints import LAST, PREVIOUS, read_file


class SealedCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint with its checksum to a temporary file, and renames it once it is on the disk.

    A replaced ``last.ckpt`` becomes ``previous.ckpt``. Files that are not intact are not read.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes the checkpoint atomically, see the class.

        Raises:
            OSError: if the disk is full; all files are then unchanged.
        """
        path, archive = Path(path), io.BytesIO()
        torch.save({**checkpoint, "sealed": True}, archive)
        seal(archive)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, archive.getbuffer(), path.with_name(PREVIOUS) if path.name == LAST else None)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content on the CPU; no class or function is loaded from a file, whatever ``weights_only`` is."""
        return read_file(path)
