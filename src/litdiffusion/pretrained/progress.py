"""Draws many samples in batches, with a progress bar."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from litdiffusion.diffusion.levels import Noise, per_sample_noise
from litdiffusion.diffusion.samplers import Draws
from litdiffusion.diffusion.seeding import item_seed
from litdiffusion.pretrained.processes import Processes


def noise_of_samples(seeds: Iterable[int]) -> Noise:
    """The noise of samples, each of which has a seed of its own."""
    return per_sample_noise([item_seed("samples", seed) for seed in seeds])


def draw_samples(
    draws: Draws, n: int, seed: int, batch_size: int, class_labels: Tensor | None, processes: Processes | None = None
) -> Tensor | None:
    """n samples on the CPU; sample i depends only on ``seed + i`` and its class label.

    Several processes draw whole batches in turn, so any number of them gives the same bits. The first one returns all
    samples, the others None.
    """
    processes = processes or Processes(draws.device)
    batches = [range(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    own = sum(map(len, batches[processes.rank :: processes.world]))
    with progress_bar(draws, own, visible=processes.is_first) as draws:

        def draw(indices: range) -> Tensor:
            return draws.batch(indices, noise_of_samples(seed + i for i in indices), class_labels).x

        parts = processes.map(draw, batches)
    return None if parts is None else torch.cat(parts)


@contextmanager
def progress_bar(draws: Draws, n: int, visible: bool = True) -> Iterator[Draws]:
    """Adds to ``draws`` a progress bar over the steps of all ``n`` samples."""
    steps = n * (len(draws.sampler.levels(draws.denoiser.schedule)) - 1)
    hidden = {} if visible else {"disable": True}  # not False, which would overrule TQDM_DISABLE
    with tqdm(total=steps, unit="step", unit_scale=True, desc="sampling", mininterval=0.5, **hidden) as bar:
        yield replace(draws, on_state=lambda state: bar.update(len(state.x) if state.step > 0 else 0))
