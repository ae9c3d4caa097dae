"""The learned vector field: the score, or the velocity of the probability flow."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from litdiffusion.callbacks.pictures import evaluating, facts_for, level_titles, save_picture, step_due
from litdiffusion.codecs import Identity
from litdiffusion.diffusion.gaussian import diffuse, mix, score
from litdiffusion.diffusion.levels import Level, seeded_noise
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.plots import FieldPanel, field_grids, field_picture
from litdiffusion.training import DiffusionModule
from litdiffusion.training.evaluation import check_weights

KINDS = {"score": "score", "velocity": "velocity, towards noise"}
PANELS = 5
CLEANEST, NOISIEST = 0.05, 3.0
"""sigma / alpha of the first and the last default level, in units of the data's std."""
POINTS_1D = 200
"""Number of points at which a 1-D field is shown."""


class Field(L.Callback):
    """Shows the learned field of 1-D and 2-D vectors at a few noise levels, over the density of the noised data.

    If the data distribution is a known mixture, the exact field is shown beneath. A conditional model is shown without
    a class, as the field of all classes together. For other data the callback does nothing.

    Args:
        run_dir: the run's folder.
        every_n_steps: interval in steps; None: only at the end of training.
        levels: times in (0, 1] of the panels; None: five levels, with sigma / alpha geometric from 0.05 to 3 times the
            data's std, as far as the process reaches.
        arrows: number of arrows along each axis, in two dimensions.
        points: number of training points for the density.
        kind: "score", or "velocity" (dx/dt of the probability flow).
        weights: "ema" or "raw".
        seed: seed of the noise on the data.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(
        self,
        run_dir: Path,
        every_n_steps: int | None = None,
        levels: Sequence[float] | None = None,
        arrows: int = 20,
        points: int = 10_000,
        kind: str = "score",
        weights: str = "ema",
        seed: int = 0,
        facts: Any = None,
    ):
        for name, value, least in (("every_n_steps", every_n_steps, 1), ("arrows", arrows, 2), ("points", points, 2)):
            if value is not None and value < least:
                raise UserError(f"callbacks.field.{name} must be at least {least}, got {value}")
        if kind not in KINDS:
            raise UserError(f"callbacks.field.kind must be {' or '.join(KINDS)}, got {kind!r}")
        check_weights(weights, "callbacks.field.weights")
        if levels is not None and not (len(levels) and all(0 < t <= 1 for t in levels)):
            raise UserError(f"callbacks.field.levels must be times in (0, 1], got {list(levels)}; null chooses them")
        self.run_dir, self.every_n_steps, self.times, self.facts = run_dir, every_n_steps, levels, facts
        self.arrows, self.points = arrows, points
        self.kind, self.weights, self.seed = kind, weights, seed

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps is not None and step_due(trainer, self.every_n_steps):
            self.save_picture(trainer, pl_module, f"field_step_{trainer.global_step:06d}.png")

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self.save_picture(trainer, pl_module, "field.png")

    def save_picture(self, trainer: L.Trainer, module: DiffusionModule, file: str) -> None:
        """Makes and saves one picture, in the first process only."""
        if trainer.is_global_zero and is_1d_or_2d(module):
            title = f"{self.kind} after {trainer.global_step} steps"
            picture = field_picture(self.panels(trainer, module), title, KINDS[self.kind])
            save_picture(trainer, self.run_dir, "field", picture, file)

    @torch.no_grad()
    def panels(self, trainer: L.Trainer, module: DiffusionModule) -> list[FieldPanel]:
        """One panel per level, the cleanest first: noised data, and the learned and the exact field on a grid."""
        schedule, noise = module.denoiser.schedule, seeded_noise(fold_seed(self.seed, "field"))
        data = module.codec.encode(facts_for(self, trainer).training_reference(self.points).to(module.device)).cpu()
        levels = self._panel_levels(schedule, data.std(dim=0).square().mean().sqrt().item())
        shown = module.codec if module.codec.in_data_space else Identity()  # a latent space has its own units
        samples = [shown.decode(diffuse(data, noise(data), level)) for level in levels]
        places = field_grids(samples, self.arrows if len(data[0]) == 2 else POINTS_1D)
        grids = [shown.encode(place.to(data.dtype)) for place in places]
        with evaluating(module):
            learned = self._field_on_grids(
                module.sampling_denoiser(self.weights), [grid.to(module.device) for grid in grids], levels
            )
        exact = module.exact_denoiser
        truths = [None] * len(levels) if exact is None else self._field_on_grids(exact, grids, levels)
        titles, units = titles_with_std(schedule, levels), shown.units(places[0])
        fields = [[self._in_units(x, units) for x in xs] for xs in (learned, truths)]
        rows = zip(titles, samples, places, *fields, strict=True)
        return [FieldPanel(*row, gradient=self.kind == "score") for row in rows]

    def _in_units(self, field: Tensor | None, units: Tensor) -> Tensor | None:
        """A field in model space as one in data space, see `Codec.units`."""
        return None if field is None else field / units if self.kind == "score" else field * units

    def _panel_levels(self, schedule: NoiseSchedule, std: float) -> list[Level]:
        """The levels of the panels without repetitions, the cleanest first."""
        if self.times is None:
            ratios = torch.logspace(math.log10(CLEANEST), math.log10(NOISIEST), PANELS, dtype=torch.float64) * std
            times = schedule.time(-2 * ratios.log())
        else:
            times = torch.tensor(self.times, dtype=torch.float64)
        levels = {level.t.item(): level for level in map(schedule.snap, times)}
        return [levels[t] for t in sorted(levels)]

    def _field_on_grids(self, denoiser: nn.Module, grids: list[Tensor], levels: list[Level]) -> list[Tensor]:
        return [field(denoiser, x, level, self.kind).cpu() for x, level in zip(grids, levels, strict=True)]


def field(denoiser: nn.Module, x: Tensor, level: Level, kind: str) -> Tensor:
    """The field at x (m, d), with primes for time derivatives.

    Score: ``-E[eps | x] / sigma``. Velocity of the probability flow: ``alpha' E[x_0 | x] + sigma' E[eps | x]``.
    """
    x_0, eps, _ = denoiser(x, level)
    if kind == "score":
        return score(eps, level)
    alpha_rate, sigma_rate = denoiser.schedule.rates(level.t)
    return mix(alpha_rate, x_0, sigma_rate, eps)


def titles_with_std(schedule: NoiseSchedule, levels: list[Level]) -> list[str]:
    """Titles of levels, with sigma if the title does not already show it."""
    names = level_titles(schedule, levels)
    if schedule.explodes or all(level.sigma == level.t for level in levels):
        return names
    return [f"{name}, σ = {level.sigma.item():.2g}" for name, level in zip(names, levels, strict=True)]


def is_1d_or_2d(module: DiffusionModule) -> bool:
    """Whether the module's data are 1-D or 2-D vectors, which a picture can show completely."""
    return tuple(module.shape) in ((1,), (2,))
