"""Functions that the callbacks with pictures share: samples of a module, titles, and picture files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL.Image import Image
from torch import Tensor

from litdiffusion.callbacks.conditions import told_in_turn
from litdiffusion.codecs import Codec
from litdiffusion.data import Facts, facts_of
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import Level, seeded_noise
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.samplers import Sampler, State
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.plots.images import in_rows
from litdiffusion.runs.dashboards import log_picture
from litdiffusion.runs.files import write_picture
from litdiffusion.training import DiffusionModule, TrainingModule
from litdiffusion.training.class_labels import class_captions, classes_in_turn
from litdiffusion.training.guard import sample_problem

MIN_REFERENCE, MAX_RANDOM_SHARE = 64, 0.01
"""Smallest number of data items that samples are compared with; share of random weights that is warned of."""


def states_of(
    module: DiffusionModule,
    sampler: Sampler,
    count: int,
    weights: str,
    seed: int,
    shown: int,
    class_label: Tensor | None = None,
    facts: Any = None,
) -> list[State]:
    """``shown`` evenly spaced states of ``count`` chains with one seed, in data space on the CPU.

    A conditional model is told ``class_label`` (count, ...), by default that of `told_in_turn`. A warning names samples
    that look broken beside the ``facts``; without facts a model must have no conditions.
    """
    class_label = told_in_turn(module, facts, count, seed) if class_label is None else class_label
    keep = evenly_spaced(len(sampler.levels(module.denoiser.schedule)), shown)
    with evaluating(module):
        states = module.draws(sampler, weights).states(count, seeded_noise(seed), class_label, keep)
    states = [state._replace(x=state.x.cpu()) for state in states]
    if facts is not None:
        warn_of_broken_samples(module, states[-1], weights, facts)
    return states


def classes_note(module: DiffusionModule, count: int) -> str:
    """What a title says of the classes of ``count`` images, which come in turn; empty for other data."""
    images = module.class_names and len(module.shape) == 3
    captions = class_captions(classes_in_turn(count, module.num_classes), module.class_names) if images else []
    return f"; classes {in_rows(captions)}" if captions else ""


def warn_of_broken_samples(module: DiffusionModule, end: State, weights: str, facts: Any) -> None:
    """Warns once of broken samples in data space, and of an average that still contains random weights.

    Does nothing in the first quarter of a run, and for samples that end at a noise level.
    """
    trainer = module.trainer
    if 4 * trainer.global_step < trainer.estimated_stepping_batches or not end.level.is_clean:
        return
    found = sample_problem(end.x, facts.reference(max(len(end.x), MIN_REFERENCE)), facts.value_range)
    if found is not None:
        module.health.warn_once(*found)
    share = module.ema.random_share(trainer.global_step) if weights == "ema" else 0.0
    if share > MAX_RANDOM_SHARE:
        percent = f"{100 * share:.0f} %"
        module.health.warn_once(
            "average",
            f"{percent} of the averaged weights are still random initial values; train longer, or set weights=raw",
        )


@contextmanager
def evaluating(module: TrainingModule) -> Iterator[None]:
    """Puts the module into evaluation mode and the run's precision inside the block, then restores its mode."""
    training = module.trained.training
    module.trained.eval()
    try:
        with module.trainer.precision_plugin.forward_context():
            yield
    finally:
        module.trained.train(training)


def evenly_spaced(count: int, shown: int) -> set[int]:
    """At most ``shown`` of the indices 0..count-1, evenly spaced, always including the last one."""
    if shown == 1:
        return {count - 1}
    return {round(index) for index in torch.linspace(0, count - 1, min(shown, count)).tolist()}


def limited_sampler(module: DiffusionModule, steps: int | None) -> Sampler:
    """The module's sampler, respaced to about ``steps`` network calls if it makes more; None: not respaced."""
    schedule, sampler = module.denoiser.schedule, module.sampler
    calls = sampler.calls(schedule)
    if steps is None or calls is None or calls <= steps or not sampler.respaceable:
        return sampler
    transitions = len(sampler.levels(schedule)) - 1
    return sampler.respaced(max(1, transitions * steps // calls))


def facts_for(callback: Any, trainer: L.Trainer) -> Facts:
    """The facts about the data: those given to the callback, else those of the trainer's data module.

    Raises:
        UserError: neither exists.
    """
    if callback.facts is None:
        if trainer.datamodule is None:
            name = type(callback).__name__
            raise UserError(
                f"{name} needs the data, but the trainer has only loaders; pass {name}(..., "
                f"facts=litdiffusion.data.facts_of(loader)), or a data module to the trainer"
            )
        callback.facts = facts_of(trainer.datamodule)
    return callback.facts


def step_due(trainer: L.Trainer, every_n_steps: int) -> bool:
    """Whether the batch that has just ended led to an optimizer step at the interval."""
    return trainer.lightning_module.stepped and trainer.global_step % every_n_steps == 0


def save_picture(trainer: L.Trainer, run_dir: Path, name: str, picture: Image, file: str) -> Path:
    """Saves a picture below the run's folder and sends it to every logger; returns the path of the file."""
    path = run_dir / "pictures" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, picture)
    log_picture(trainer, name, picture)
    return path


def panel_titles(schedule: NoiseSchedule, states: list[State]) -> list[str]:
    """Title of each state's panel: its step k if all states have one noise level (Langevin), else its noise level."""
    if len(states) > 1 and all(state.level.t == states[0].level.t for state in states):
        return [f"k = {state.step}" for state in states]
    return level_titles(schedule, [state.level for state in states])


def level_titles(schedule: NoiseSchedule, levels: list[Level]) -> list[str]:
    """Title of each noise level: sigma if alpha = 1, the index on a discrete chain, else the time."""
    if schedule.explodes:
        return [f"σ = {level.sigma.item():.3g}" for level in levels]
    if schedule.steps is not None:
        return [f"t = {round(schedule.noise_label(level).item())}" for level in levels]
    return [f"t = {level.t.item():.2f}" for level in levels]


def target_name(end: State) -> str:
    """Name of the data that samples are compared with: "noised data" if the samples end at a noise level."""
    return "data" if end.level.is_clean else "noised data"


def noised_like(end: State, data: Tensor, codec: Codec) -> Tensor:
    """The data at the noise level where the samples end; unchanged if that is clean."""
    if end.level.is_clean:
        return data
    x_0 = codec.encode(data)
    return codec.decode(diffuse(x_0, seeded_noise(fold_seed(0, "trajectory_data"))(x_0), end.level))


def display_range(facts: Any) -> tuple[float, float]:
    """Value range for pictures of images; that of bytes if the data declare none."""
    return facts.value_range or BYTES
