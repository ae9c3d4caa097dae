"""Picture files that are indexed like a tensor."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from litdiffusion.data.pixels import Pixels, decode
from litdiffusion.errors import UserError


class ImageFiles:
    """N image files that are indexed like a uint8 tensor (N, C, H, W) and decoded on access."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, ...], pixels: Pixels | None = None) -> None:
        self.paths, self.item_shape, self.pixels = list(paths), shape, pixels or Pixels()

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.paths), *self.item_shape))

    def __len__(self) -> int:
        return len(self.paths)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The images ``index`` (B,), decoded, as uint8 (B, C, H, W); ``dim`` is always 0."""
        return torch.stack([decode(self.paths[i], self.item_shape, self.pixels) for i in index.tolist()])

    def decode_all(self) -> Tensor:
        """All images (N, C, H, W), decoded by threads: Pillow releases the interpreter lock while it decodes."""
        images = torch.empty(self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            tasks = [pool.submit(decode, path, self.item_shape, self.pixels) for path in self.paths]
            try:
                for image, task in zip(images, tasks, strict=True):
                    image.copy_(task.result())
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise
        return images
