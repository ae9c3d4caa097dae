"""Any folder of pictures as a data set: decoded once if it fits in memory, else decoded batch by batch."""

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litdiffusion.data.base import DataModule, check_at_least, hold_out
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.errors import UserError

EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"))


def decode(path: str, shape: tuple[int, ...]) -> Tensor:
    """One picture as uint8 ``shape`` = (C, H, W): turned upright, resized to cover H x W, centre-cropped.

    16-bit grey values are reduced to 8 bits.

    Raises:
        UserError: for a file that cannot be read; the message names it.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                # Pillow would clip everything above 255 to white.
                image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
            image = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (width, height), Image.LANCZOS)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the image {path} ({error}); repair or remove it") from error
    return torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1).contiguous()


class ImageFiles:
    """N image files that are indexed like a uint8 tensor (N, C, H, W) and decoded on access."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, ...]) -> None:
        self.paths, self.item_shape = list(paths), shape

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.paths), *self.item_shape))

    def __len__(self) -> int:
        return len(self.paths)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The images ``index`` (B,), decoded, as uint8 (B, C, H, W); ``dim`` is always 0."""
        return torch.stack([decode(self.paths[i], self.item_shape) for i in index.tolist()])

    def decode_all(self) -> Tensor:
        """All images (N, C, H, W), decoded by threads: Pillow releases the interpreter lock while it decodes."""
        images = torch.empty(self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            tasks = [pool.submit(decode, path, self.item_shape) for path in self.paths]
            try:
                for image, task in zip(images, tasks, strict=True):
                    image.copy_(task.result())
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise
        return images


class ImageFolder(DataModule):
    """All pictures below ``path``, cropped to ``image_size`` (side, or [height, width]), see `decode`.

    If every picture lies in a first-level subfolder, these subfolders are the classes, in alphabetical order; otherwise
    the set has no classes. A set of up to ``memory_limit_gb`` (10⁹ bytes, decoded) is decoded once. A larger set is
    decoded during training by ``num_workers`` processes, with the same batches. Validation items are held out of the
    folder.

    Raises:
        UserError: for a missing or empty folder, sizes out of range, or an unreadable picture.
    """

    value_range = BYTES

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int | Sequence[int],
        channels: int = 3,
        batch_size: int,
        val_size: int = 2_000,
        seed: int,
        memory_limit_gb: float = 2.0,
        num_workers: int = 2,
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(size) != 2 or not all(isinstance(side, int) and side >= 1 for side in size):
            raise UserError(f"data.image_size={image_size}: must be a side or [height, width], each at least 1")
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels}: must be 1 (grey) or 3 (RGB)")
        check_at_least("memory_limit_gb", memory_limit_gb, 0)
        check_at_least("num_workers", num_workers, 0)
        self.path, self.shape = Path(path).expanduser(), (channels, *size)
        self.memory_limit_gb, self.requested_workers = memory_limit_gb, num_workers

    @cached_property
    def paths(self) -> list[Path]:
        """Paths of the pictures relative to ``path``, sorted, without hidden files."""
        if not self.path.is_dir():
            raise UserError(f"data.path={self.path}: no such folder; set data.path to a folder of images")
        found = (file.relative_to(self.path) for file in self.path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        visible = sorted(file for file in found if not any(part.startswith(".") for part in file.parts))
        if not visible:
            raise UserError(f"data.path={self.path}: no images ({', '.join(sorted(EXTENSIONS))}) in this folder")
        return visible

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the first-level subfolders if every picture lies in one, else an empty list."""
        nested = all(len(file.parts) > 1 for file in self.paths)
        return sorted({file.parts[0] for file in self.paths}) if nested else []

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
        return 0 if self.in_memory else self.requested_workers

    def read(self) -> tuple[Batch, Batch]:
        """Training and validation items: uint8 tensors, or `ImageFiles` if the decoded set exceeds the memory limit."""
        train, val = hold_out(len(self.paths), self.val_size)
        return self._batch_of(train), self._batch_of(val)

    @property
    def in_memory(self) -> bool:
        """Whether the decoded set is within the memory limit."""
        return len(self.paths) * prod(self.shape) <= self.memory_limit_gb * 1e9

    def _digest(self) -> str:
        if self.in_memory:
            return super()._digest()
        # File names and sizes, because the decoded images do not fit in memory.
        files = [(file.as_posix(), (self.path / file).stat().st_size) for file in self.paths]
        return hashlib.sha256(json.dumps([files, self.shape, self.val_size]).encode()).hexdigest()

    def _batch_of(self, index: Tensor) -> Batch:
        paths = [self.paths[i] for i in index.tolist()]
        class_index = {name: i for i, name in enumerate(self.class_names)}
        class_label = torch.tensor([class_index[file.parts[0]] for file in paths]) if class_index else None
        files = ImageFiles([str(self.path / file) for file in paths], self.shape)
        return Batch(files.decode_all() if self.in_memory else files, class_label)
