"""Batches that do not fit into memory: computes another denoiser on parts of a batch."""

import sys

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import is_out_of_memory


class FittingDenoiser(DenoiserWrapper):
    """Computes another denoiser on as many items at once as fit into memory, and says once how many these are.

    It halves the number when memory runs out, down to one item, and keeps it. An item's prediction does not depend on
    the others, so this changes predictions only by rounding. The level has no dimensions.
    """

    def __init__(self, denoiser: nn.Module):
        super().__init__(denoiser)
        self.most: int | None = None
        """The largest number of items at once; None: no limit was met."""

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        while True:
            size = self.most or max(len(x_t), 1)
            try:
                return self._in_parts(size, x_t, level, class_label)
            except RuntimeError as error:
                if not is_out_of_memory(error) or min(size, len(x_t)) < 2:
                    raise
            self.most = (min(size, len(x_t)) + 1) // 2  # outside of the handler, whose traceback holds memory
            if x_t.is_cuda:
                torch.cuda.empty_cache()
            print(
                f"note: {size} samples at once do not fit into the memory of {x_t.device}; the network takes "
                f"{self.most} at a time",
                file=sys.stderr,
            )

    def _in_parts(self, size: int, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        if size >= len(x_t):
            return self.denoiser(x_t, level, class_label)
        labels = [None] * len(x_t) if class_label is None else class_label.split(size)
        parts = [self.denoiser(x, level, label) for x, label in zip(x_t.split(size), labels, strict=False)]
        return Prediction(*(None if field[0] is None else torch.cat(field) for field in zip(*parts, strict=True)))
