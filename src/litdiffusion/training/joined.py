"""The joined batch of all processes: its random numbers, and which of its items each process has.

Process r of W trains the items r, r + W, r + 2 W, ... of the joined batch, as `EpochSampler` and Lightning's own
sampler divide the data. Each process draws the random numbers of the joined batch and takes those of its items: so W
processes with B items each train what one process with W * B items trains, up to rounding. That costs W times the
random numbers, and nothing for one process.
"""

from typing import NamedTuple

import lightning as L
import torch
import torch.distributed
from torch import Tensor

from litdiffusion.diffusion.levels import Noise


class Joined(NamedTuple):
    """The random numbers of a batch for the items of process ``rank`` of ``world``.

    They come from ``generator``, which must be in the same state in all processes; None: the device's default one,
    which is right for one process.
    """

    rank: int = 0
    world: int = 1
    generator: torch.Generator | None = None

    def uniform(self, *size: int, device: torch.device) -> Tensor:
        """Uniform numbers on [0, 1) of shape ``size`` for the items of this process, as ``torch.rand``."""
        count, *rest = size
        return self.own(torch.rand(count * self.world, *rest, device=device, generator=self.generator))

    def normal(self, x: Tensor) -> Tensor:
        """Standard normal noise like x (B, ...), as ``torch.randn_like``; a `Noise`."""
        return torch.randn_like(x) if self.world == 1 else self.own(self.like(x).normal_(generator=self.generator))

    def rows(self, noise: Noise) -> Noise:
        """A `Noise` of which this process takes its own items, if ``noise`` draws alike in all processes."""
        return noise if self.world == 1 else lambda x: self.own(noise(self.like(x)))

    def own(self, joined: Tensor) -> Tensor:
        """This process's items (B, ...) of a joined batch (B * world, ...)."""
        # A copy, because a view would keep the numbers of all processes in memory.
        return joined if self.world == 1 else joined[self.rank :: self.world].clone()

    def like(self, x: Tensor) -> Tensor:
        """An empty joined batch (B * world, ...) in the memory format of x (B, ...), on which the draws depend."""
        return x.new_empty_strided((len(x) * self.world, *x.shape[1:]), torch.empty_like(x).stride())


ALONE = Joined()


def place_of(module: L.LightningModule, generator: torch.Generator | None = None) -> Joined:
    """The place of this process among those that train ``module``; one process without a Trainer."""
    world = 1 if module._trainer is None else module.trainer.world_size
    return Joined(module.global_rank, world, generator)


def gathered(values: Tensor, world: int) -> Tensor:
    """The values (n,) of the items of each of ``world`` processes as those of the joined batches (n * world,)."""
    if world == 1:
        return values
    found = [torch.empty_like(values) for _ in range(world)]
    torch.distributed.all_gather(found, values.contiguous())
    return torch.stack(found, dim=1).flatten()
