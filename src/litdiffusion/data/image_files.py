"""Encoded pictures that are indexed like a tensor."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from litdiffusion.data.pixels import Pixels, decode
from litdiffusion.errors import UserError


class Encoded(ABC):
    """N encoded pictures that are indexed like a uint8 tensor (N, C, H, W) and decoded on access."""

    item_shape: tuple[int, ...]

    @abstractmethod
    def __len__(self) -> int:
        raise NotImplementedError

    @abstractmethod
    def decode(self, index: int) -> Tensor:
        """One picture as uint8 (C, H, W)."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), *self.item_shape))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The images ``index`` (B,), decoded, as uint8 (B, C, H, W); ``dim`` is always 0."""
        return torch.stack([self.decode(i) for i in index.tolist()])

    def decode_all(self) -> Tensor:
        """All images (N, C, H, W), decoded by threads: Pillow releases the interpreter lock while it decodes."""
        images = torch.empty(self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            tasks = [pool.submit(self.decode, i) for i in range(len(self))]
            try:
                for image, task in zip(images, tasks, strict=True):
                    image.copy_(task.result())
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise
        return images


class ImageFiles(Encoded):
    """N image files, see `Encoded`."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, ...], pixels: Pixels | None = None) -> None:
        self.paths, self.item_shape, self.pixels = list(paths), shape, pixels or Pixels()

    def __len__(self) -> int:
        return len(self.paths)

    def decode(self, index: int) -> Tensor:
        """The picture of the file ``index``, see `pixels.decode`."""
        return decode(self.paths[index], self.item_shape, self.pixels)
