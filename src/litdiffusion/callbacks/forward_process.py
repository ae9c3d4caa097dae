"""A picture of the forward process, made once before training."""

from pathlib import Path
from typing import Any

import lightning as L
import torch

from litdiffusion.callbacks.pictures import display_range, facts_for, level_titles, save_picture
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import CLEAN, Level, seeded_noise
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.plots import forward_picture
from litdiffusion.training import DiffusionModule

IMAGE_TIMES = (0.0, 0.005, *(k / 20 for k in range(1, 21)))
VECTOR_TIMES = (0.005, 0.025, 0.05, 0.25, 0.5, 1.0)


class ForwardProcess(L.Callback):
    """Shows data at growing noise, once before training.

    Images: t = 0, 1/200, 0.05, 0.1, ..., 1. Vectors: i = 1, 5, 10, 50, 100, 200 of 200. If alpha = 1, the levels are
    evenly spaced in log sigma instead.

    Args:
        run_dir: the run's folder.
        samples: number of images, one for each row of the sheet, or of sequences.
        points: number of vectors in each panel.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(self, run_dir: Path, samples: int = 6, points: int = 10_000, facts: Any = None):
        self.run_dir, self.facts = run_dir, facts
        self.samples, self.points = samples, points

    def on_fit_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if not trainer.is_global_zero:
            return
        facts = facts_for(self, trainer)
        images = len(facts.shape) == 3
        data = facts.training_reference(self.points if len(facts.shape) == 1 else self.samples)
        schedule, noise = pl_module.denoiser.schedule, seeded_noise(fold_seed(0, "forward_process"))
        x_0 = pl_module.codec.encode(data.to(pl_module.device))
        levels = shown_levels(schedule, IMAGE_TIMES if images else VECTOR_TIMES)
        states = [pl_module.codec.decode(diffuse(x_0, noise(x_0), level)).cpu() for level in levels]
        picture = forward_picture(states, level_titles(schedule, levels), "forward process", display_range(facts))
        save_picture(trainer, self.run_dir, "forward_process", picture, "forward_process.png")


def shown_levels(schedule: NoiseSchedule, times: tuple[float, ...]) -> list[Level]:
    """Levels for a picture of the forward process, with growing sigma and without repetitions."""
    chosen = torch.tensor(times, dtype=torch.float64)
    if schedule.explodes:
        ends = schedule.at(torch.tensor([schedule.t_min, 1.0], dtype=torch.float64)).log_snr
        chosen = schedule.time(torch.linspace(*ends.tolist(), len(times), dtype=torch.float64))
    levels = [CLEAN if t == 0 and schedule.t_min > 0 else schedule.snap(t) for t in chosen]
    return [level for i, level in enumerate(levels) if i == 0 or level.sigma > levels[i - 1].sigma]
