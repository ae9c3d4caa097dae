"""Many samples in blocks of their own seeds: the same whoever draws which block."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.samplers.base import Sampler, State, blank
from litdiffusion.diffusion.seeding import fold_seed


class Blocks:
    """Samples 0, 1, 2, ... of a denoiser in blocks of ``size``; block k is a function of (seed, k) alone.

    So any split of the blocks over processes gives the same samples, to the rounding of the device.
    ``class_labels`` (N,) are the classes of samples 0, 1, ... of a conditional denoiser, cycled.
    """

    def __init__(
        self,
        sampler: Sampler,
        denoiser: nn.Module,
        shape: Sequence[int],
        size: int,
        seed: int,
        class_labels: Tensor | None = None,
        device: torch.device | None = None,
    ):
        self.sampler, self.denoiser, self.shape = sampler, denoiser, tuple(shape)
        self.size, self.seed, self.class_labels, self.device = size, seed, class_labels, device

    def draw(self, index: int) -> State:
        """The last state, x (size, *shape) in model space, of block ``index``."""
        noise = seeded_noise(fold_seed(self.seed, index))
        x = self.sampler.prior(self.denoiser.schedule, blank(self.size, self.shape, self.device), noise)
        for state in self.sampler.trajectory(self.denoiser, x, self._cond(index, x.device), noise):
            end = state
        return end

    def _cond(self, index: int, device: torch.device) -> Tensor | None:
        if self.class_labels is None:
            return None
        places = torch.arange(index * self.size, (index + 1) * self.size) % len(self.class_labels)
        return self.class_labels[places].to(device)
