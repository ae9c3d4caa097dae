"""The description in checkpoints of a module whose parts were made in a script, in the form of a composed config."""

from typing import Any

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.objectives import DenoisingObjective
from litdiffusion.parts.described import description


def description_of(
    denoiser: Denoiser,
    objective: DenoisingObjective,
    value_range: tuple[float, float] | None,
    shape: tuple[int, ...],
    num_classes: int,
    conditions: list[dict[str, Any]],
    parts: dict[str, Any],
) -> dict[str, Any]:
    """The description of a module: its parts in the form of a composed config, and the value range of the data.

    Args:
        denoiser: denoiser with net, schedule and parameterization.
        objective: objective with times and weighting.
        value_range: value range of the data, or None.
        shape: shape of one sample in model space.
        num_classes: number of classes of a conditional model, or 0.
        conditions: its continuous conditions.
        parts: further parts and settings, by their config keys.
    """
    context = {"schedule": denoiser.schedule}
    objective_parts = {name: getattr(objective, name) for name in ("times", "weighting")}
    described = {"model": denoiser.net, "parameterization": denoiser.parameterization, **objective_parts, **parts}
    config = {name: description(part, context) for name, part in described.items()}
    derived = {
        "shape": list(shape),
        "out_channels": shape[0] * (2 if denoiser.learned_variance else 1),
        "num_classes": num_classes,
        "conditions": conditions,
        "num_class_embeds": num_classes + 1 if num_classes else None,
        "noise_label_range": list(denoiser.schedule.noise_label_range),
    }
    settings = {"learned_variance": denoiser.learned_variance, "clip_samples": value_range is not None}
    schedule, objective = description(denoiser.schedule), description(objective, objective_parts)
    config |= {**settings, "schedule": schedule, "objective": objective, "derived": derived, "compile": False}
    return {"config": config, "value_range": value_range}
