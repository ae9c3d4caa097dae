"""Batches that do not fit into memory: computes another denoiser on parts of a batch."""

import sys

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import is_out_of_memory


class FittingDenoiser(DenoiserWrapper):
    """Computes another denoiser on as many items at once as fit into memory, and says once how many these are.

    It halves the number when memory runs out, down to one item, and keeps it. An item's prediction does not depend on
    the others, so this changes predictions only by rounding. The level has no dimensions.
    """

    def __init__(self, denoiser: AnyDenoiser):
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
        parts = [
            self.denoiser(x_t[part], level, None if class_label is None else class_label[part])
            for part in (slice(start, start + size) for start in range(0, len(x_t), size))
        ]
        x_0, eps = (torch.cat(field) for field in list(zip(*parts, strict=True))[:2])
        fractions = [part.variance_fraction for part in parts if part.variance_fraction is not None]
        return Prediction(x_0, eps, torch.cat(fractions) if fractions else None)
