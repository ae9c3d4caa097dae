"""What the drawing callbacks share: draws from a module, files for pictures, and the time that both take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from PIL.Image import Image

from litdiffusion.loggers import log_picture
from litdiffusion.modules import DiffusionModule
from litdiffusion.samplers import Sampler, State
from litdiffusion.samplers.base import prior
from litdiffusion.types import seeded_noise


class Stopwatch:
    """Sums the wall time of the blocks it is used on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.last = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.last = time.perf_counter() - start
            self.seconds += self.last


def states_of(
    module: DiffusionModule, sampler: Sampler, count: int, weights: str, seed: int, keep_every: int
) -> list[State]:
    """Every ``keep_every``-th state and the last of ``count`` chains from one seed, in data space on the CPU."""
    denoiser = module.sampling_denoiser(weights)
    training = module.denoiser.training
    module.denoiser.eval()
    noise = seeded_noise(seed)
    x = prior(denoiser.schedule, torch.empty(count, *module.shape, device=module.device), noise)
    with module.trainer.precision_plugin.forward_context():
        states = list(thinned(sampler.trajectory(denoiser, x, noise=noise), keep_every))
    module.denoiser.train(training)
    return [State(module.codec.decode(x).float().cpu(), level) for x, level in states]


def at_most(module: DiffusionModule, steps: int | None) -> Sampler:
    """The module's sampler, respaced to ``steps`` network calls where it would make more; None leaves it as it is."""
    length = len(module.sampler.levels(module.denoiser.schedule)) - 1
    return module.sampler if steps is None or length <= steps else module.sampler.respaced(steps)


def thinned(states: Iterator[State], keep_every: int) -> Iterator[State]:
    """Every ``keep_every``-th state, beginning with the first, and the last."""
    for index, state in enumerate(states):
        if index % keep_every == 0:
            yield state
    if index % keep_every:
        yield state


def save_picture(trainer: L.Trainer, run_dir: Path, name: str, picture: Image, file: str) -> Path:
    """Writes a picture below the run's folder and shows it on every logger; returns the file's path."""
    path = run_dir / "pictures" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    log_picture(trainer, name, picture, trainer.global_step)
    return path


def indices(module: DiffusionModule, states: list[State]) -> list[int]:
    """The chain's index of each state, T down to 0, for the heads of the panels."""
    return [round(module.denoiser.schedule.label(state.level).item()) for state in states]


def display_range(trainer: L.Trainer) -> tuple[float, float]:
    """The range of values that pictures of images show; it has no meaning for vectors."""
    return trainer.datamodule.value_range or (-1.0, 1.0)
