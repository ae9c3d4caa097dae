"""Pictures of the reverse process during training."""

from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from litdiffusion.callbacks.pictures import (
    classes_note,
    display_range,
    facts_for,
    limited_sampler,
    noised_like,
    panel_titles,
    save_picture,
    states_of,
    step_due,
    target_name,
)
from litdiffusion.diffusion.samplers import State
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.plots import trajectory_gif, trajectory_picture
from litdiffusion.runs.dashboards import log_animation
from litdiffusion.runs.files import write_atomically
from litdiffusion.training import DiffusionModule
from litdiffusion.training.clock import Budget
from litdiffusion.training.evaluation import check_weights


class Trajectory(L.Callback):
    """Shows sampling trajectories at an interval and at the end, always from the same noise.

    Images give a sheet of chains x states. Vectors and sequences give one panel per state, with the data beside them.
    Pictures are saved in ``run_dir/pictures`` and sent to every logger. The last trajectory also becomes an animated
    GIF, which W&B and TensorBoard play.

    Args:
        run_dir: the run's folder.
        every_n_steps: interval in steps, 10 in the MNIST source; None: at every validation.
        chains: number of chains of images and of sequences, of which a picture shows six.
        points: number of points of vector data. Chain i of a conditional model has the class ``i % num_classes``.
        shown: number of states in a picture, evenly spaced, including the first and the last.
        steps: largest number of network calls per picture; a longer chain is respaced, except with Langevin dynamics.
            null: the sampler's own number.
        weights: "ema" or "raw".
        max_share: largest share of the run's time for pictures; a picture that would exceed it is left out, except the
            first and the last. None: no limit.
        seed: seed of the noise.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(
        self,
        run_dir: Path,
        every_n_steps: int | None = None,
        chains: int = 10,
        points: int = 2000,
        shown: int = 26,
        steps: int | None = 200,
        weights: str = "ema",
        max_share: float | None = 0.1,
        seed: int = 0,
        facts: Any = None,
    ):
        for name, value in (("every_n_steps", every_n_steps), ("chains", chains), ("shown", shown)):
            if value is not None and value < 1:
                raise UserError(f"callbacks.trajectory.{name} must be at least 1, got {value}")
        check_weights(weights, "callbacks.trajectory.weights")
        self.run_dir, self.facts = run_dir, facts
        self.every_n_steps = every_n_steps
        self.chains, self.points = chains, points
        self.shown, self.steps = shown, steps
        self.weights, self.seed = weights, seed
        self.max_share = max_share
        self.pictured: list[int] = []
        self.states: list[State] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        # 3 jobs: the next picture, the last one, and the animation, which costs about as much as a picture.
        self._budget = Budget(pl_module.clock, "drawing", self.max_share, ahead=3)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps is not None and step_due(trainer, self.every_n_steps) and self._budget.allows():
            self.save_picture(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if self.every_n_steps is None and not trainer.sanity_checking and self._budget.allows():
            self.save_picture(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if not trainer.is_global_zero:
            return
        if trainer.global_step not in self.pictured[-1:]:
            self.save_picture(trainer, pl_module)
        with pl_module.clock("drawing"):
            self._animate(trainer, pl_module)

    def summary(self) -> str:
        """One line for the end of a run; empty for a process without pictures."""
        if not self.pictured:
            return ""
        return (
            f"trajectories: {len(self.pictured)} pictures; all drawing took {self._budget.seconds:.1f} s, "
            f"{100 * self._budget.share:.1f} % of the training time"
        )

    def save_picture(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        """Makes and saves one picture, in the first process only."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        with self._budget.spend():
            self.states = states = self._states(trainer, module)
            picture = trajectory_picture(
                [state.x for state in states],
                panel_titles(module.denoiser.schedule, states),
                self._target(trainer, module),
                f"reverse process after {step} steps{classes_note(module, len(states[-1].x))}",
                display_range(facts_for(self, trainer)),
                data_title=target_name(states[-1]),
            )
            save_picture(trainer, self.run_dir, "trajectory", picture, f"trajectory_step_{step:06d}.png")
        self.pictured.append(step)

    def _states(self, trainer: L.Trainer, module: DiffusionModule) -> list[State]:
        count, facts = self.points if len(module.shape) == 1 else self.chains, facts_for(self, trainer)
        seed = fold_seed(self.seed, "trajectory")
        return states_of(
            module, limited_sampler(module, self.steps), count, self.weights, seed, self.shown, facts=facts
        )

    def _animate(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        path = self.run_dir / "pictures" / "trajectory.gif"
        xs = [state.x for state in self.states]
        names = panel_titles(module.denoiser.schedule, self.states)
        name = target_name(self.states[-1])
        limits = display_range(facts_for(self, trainer))
        write_atomically(path, trajectory_gif(xs, names, self._target(trainer, module), limits, data_title=name))
        log_animation(trainer, "trajectory", path)

    def _target(self, trainer: L.Trainer, module: DiffusionModule) -> Tensor:
        return noised_like(self.states[-1], facts_for(self, trainer).reference(self.points), module.codec)
