"""What the drawing callbacks share: draws from a module and files for pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL.Image import Image
from torch import Tensor

from litdiffusion.data import Facts
from litdiffusion.data import facts_of as found_facts
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import Level, seeded_noise
from litdiffusion.diffusion.samplers import Sampler, State
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError
from litdiffusion.runs.dashboards import log_picture
from litdiffusion.training import DiffusionModule
from litdiffusion.training.class_labels import classes_in_turn
from litdiffusion.training.guard import sample_problem

MIN_REFERENCE, MAX_RANDOM_SHARE = 64, 0.01
"""Data that samples are compared with, at least; share of the random start in the average that is worth a word."""


def states_of(
    module: DiffusionModule,
    sampler: Sampler,
    count: int,
    weights: str,
    seed: int,
    shown: int,
    class_label: Tensor | None = None,
    data: Any = None,
) -> list[State]:
    """``shown`` states, evenly spread, of ``count`` chains from one seed, in data space on the CPU.

    A conditional model draws the classes ``class_label`` (count,); by default chain i is of class ``i % num_classes``.
    A warning names samples that look broken beside ``data``.
    """
    class_label = classes_in_turn(count, module.num_classes) if class_label is None else class_label
    keep = evenly_spaced(len(sampler.levels(module.denoiser.schedule)), shown)
    with evaluating(module):
        states = module.draws(sampler, weights).states(count, seeded_noise(seed), class_label, keep)
    states = [state._replace(x=state.x.cpu()) for state in states]
    if data is not None:
        warn_of_broken_samples(module, states[-1], weights, data)
    return states


def warn_of_broken_samples(module: DiffusionModule, end: State, weights: str, data: Any) -> None:
    """Tells once, from a quarter of the run on, where samples in data space look broken, and of which average."""
    trainer = module.trainer
    if 4 * trainer.global_step < trainer.estimated_stepping_batches or not end.level.is_clean:
        return
    found = sample_problem(end.x, data.reference(max(len(end.x), MIN_REFERENCE)), data.value_range)
    if found is not None:
        module.health.warn_once(*found)
    share = module.ema.random_share(trainer.global_step) if weights == "ema" else 0.0
    if share > MAX_RANDOM_SHARE:
        line = f"{100 * share:.0f} % of the averaged weights are still the random start; train longer, or weights=raw"
        module.health.warn_once("average", line)


@contextmanager
def evaluating(module: DiffusionModule) -> Iterator[None]:
    """Inside the block the module is in evaluation mode and the run's precision; after it in the mode it had."""
    training = module.denoiser.training
    module.denoiser.eval()
    try:
        with module.trainer.precision_plugin.forward_context():
            yield
    finally:
        module.denoiser.train(training)


def evenly_spaced(count: int, shown: int) -> set[int]:
    """At most ``shown`` of the places 0..count-1, evenly spread, the last always among them."""
    if shown == 1:
        return {count - 1}
    return {round(place) for place in torch.linspace(0, count - 1, min(shown, count)).tolist()}


def limited_sampler(module: DiffusionModule, steps: int | None) -> Sampler:
    """The module's sampler, respaced to about ``steps`` network calls where it would make more; None leaves it."""
    schedule, sampler = module.denoiser.schedule, module.sampler
    calls = sampler.calls(schedule)
    if steps is None or calls is None or calls <= steps or not sampler.respaceable:
        return sampler
    transitions = len(sampler.levels(schedule)) - 1
    return sampler.respaced(max(1, transitions * steps // calls))


def facts_of(callback: Any, trainer: L.Trainer) -> Facts:
    """What is known of the data: what the callback was given, else what the trainer's data module says.

    Raises:
        UserError: neither is there.
    """
    if callback.data is None:
        if trainer.datamodule is None:
            name = type(callback).__name__
            raise UserError(
                f"{name} must know the data, and the trainer was given loaders; pass {name}(..., "
                f"data=litdiffusion.data.facts_of(loader)), or a data module to the trainer"
            )
        callback.data = found_facts(trainer.datamodule)
    return callback.data


def step_due(trainer: L.Trainer, every_n_steps: int) -> bool:
    """Whether the batch that has ended led to a step of the optimizer, and to one at the interval."""
    return trainer.lightning_module.stepped and trainer.global_step % every_n_steps == 0


def save_picture(trainer: L.Trainer, run_dir: Path, name: str, picture: Image, file: str) -> Path:
    """Writes a picture below the run's folder and shows it on every logger; returns the file's path."""
    path = run_dir / "pictures" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    log_picture(trainer, name, picture)
    return path


def panel_titles(schedule: NoiseSchedule, states: list[State]) -> list[str]:
    """The name of each state over its panel: what tells the levels of this process apart."""
    if len(states) > 1 and all(state.level.t == states[0].level.t for state in states):
        return [f"k = {state.step}" for state in states]
    return level_titles(schedule, [state.level for state in states])


def level_titles(schedule: NoiseSchedule, levels: list[Level]) -> list[str]:
    """The deviation where data keep their scale, the index on a chain, else the time."""
    if schedule.explodes:
        return [f"σ = {level.sigma.item():.3g}" for level in levels]
    if schedule.steps is not None:
        return [f"t = {round(schedule.noise_label(level).item())}" for level in levels]
    return [f"t = {level.t.item():.2f}" for level in levels]


def target_name(end: State) -> str:
    """What samples should look like: data, or noised data where the walk ends at a noise level."""
    return "data" if end.level.is_clean else "noised data"


def noised_like(end: State, data: Tensor, seed: int = 1) -> Tensor:
    """Data at the level where a walk ended: as they are, or with noise of their own seed."""
    return data if end.level.is_clean else diffuse(data, seeded_noise(seed)(data), end.level)


def display_range(data: Any) -> tuple[float, float]:
    """The range of values that pictures of images show; it has no meaning for vectors."""
    return data.value_range or (-1.0, 1.0)
