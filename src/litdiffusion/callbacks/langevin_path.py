"""One long Langevin chain at a single noise level: shows whether it reaches the other mode."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from litdiffusion.callbacks.field import is_1d_or_2d
from litdiffusion.callbacks.pictures import evaluating, facts_for, save_picture
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.samplers import Draws, Langevin
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.plots import path_picture
from litdiffusion.training import DiffusionModule
from litdiffusion.training.evaluation import check_weights


class LangevinPath(L.Callback):
    """Draws one chain ``x + h * score + sqrt(2 h) * z`` from the origin, at the end of training.

    The chain stays at the noise level of t = 1, the only level of a ``single`` schedule, and is shown over the data
    noised to that level. A conditional model is sampled without a class. For data other than 1-D or 2-D vectors the
    callback does nothing.

    Args:
        run_dir: the run's folder.
        steps: number of steps of the chain, each one network call for a single point.
        step_size: h, in squared units of model space, where the chain begins at the origin.
        keep_every: every n-th state is shown.
        points: number of noised data points.
        weights: "ema" or "raw".
        seed: seed of the chain and of the noise on the data.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(
        self,
        run_dir: Path,
        steps: int = 100_000,
        step_size: float = 5e-4,
        keep_every: int = 100,
        points: int = 4000,
        weights: str = "ema",
        seed: int = 0,
        facts: Any = None,
    ):
        for name, value in (("steps", steps), ("keep_every", keep_every), ("points", points)):
            if value < 1:
                raise UserError(f"callbacks.langevin_path.{name} must be at least 1, got {value}")
        if not step_size > 0:
            raise UserError(f"callbacks.langevin_path.step_size must be positive, got {step_size}")
        check_weights(weights, "callbacks.langevin_path.weights")
        self.run_dir, self.facts = run_dir, facts
        self.steps, self.step_size, self.keep_every = steps, step_size, keep_every
        self.points, self.weights, self.seed = points, weights, seed

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if not trainer.is_global_zero or not is_1d_or_2d(pl_module):
            return
        level = pl_module.denoiser.schedule.at(1.0)
        data = facts_for(self, trainer).reference(self.points)
        data = pl_module.codec.encode(data.to(pl_module.device)).cpu()
        noised = diffuse(data, seeded_noise(fold_seed(self.seed, "langevin_data"))(data), level)
        title = f"one Langevin chain, step size {self.step_size:g}, σ = {level.sigma.item():.3g}"
        path, codec = self.path(pl_module), pl_module.codec
        if codec.in_data_space:
            noised, path = codec.decode(noised), codec.decode(path)
        picture = path_picture(noised, path, title, self.keep_every, "noised data")
        save_picture(trainer, self.run_dir, "langevin_path", picture, "langevin_path.png")

    def path(self, module: DiffusionModule) -> Tensor:
        """Every ``keep_every``-th state (k, d) of the chain from the origin on, on the CPU."""
        chain = Langevin(self.steps, self.step_size)
        start = torch.zeros(1, *module.shape, device=module.device)
        keep = range(0, self.steps + 1, self.keep_every)
        with evaluating(module):
            draws = Draws(chain, module.sampling_denoiser(self.weights), module.shape)  # not decoded: model space
            noise = seeded_noise(fold_seed(self.seed, "langevin_path"))
            return torch.cat([state.x.cpu() for state in draws.states_from(start, noise, keep=keep)])
