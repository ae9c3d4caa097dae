"""Autoguidance: away from the prediction of a weaker version of the model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.guidance import Guidance, extrapolated
from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


class Autoguidance(Guidance):
    """``x_0 = x_0^guide + weight * (x_0^main - x_0^guide)``, and the same for eps; both get the same class, or none.

    The guide is a smaller net, or an earlier checkpoint, trained on the same data. What it does worse than the main
    model is corrected further, so samples get better without getting more alike. weight = 1 is the main model, weight =
    0 the guide. A guide equal to the model changes nothing at any weight. Costs one call of each net; one of the main
    model with weight = 1 or outside the interval.

    Args:
        denoiser: the main model.
        weight, interval: see `Guidance`.
        guide: the weaker denoiser, over the same noise levels; net and parameterization may be others.

    Raises:
        UserError: see `Guidance`; a guide with other noise levels, which its net was not trained on.

    Source: Karras, Aittala, Kynkäänniemi, Lehtinen, Aila, Laine, "Guiding a Diffusion Model with a Bad Version of
    Itself", 2024, arXiv 2406.02507, equation 2.
    """

    needs_classes = False

    def __init__(
        self, denoiser: AnyDenoiser, weight: float, guide: AnyDenoiser, interval: Sequence[float] | None = None
    ):
        super().__init__(denoiser, weight, interval)
        if not _same_levels(denoiser.schedule, guide.schedule):
            names = (type(part.schedule).__name__ for part in (guide, denoiser))
            raise UserError(
                "the guide was trained on other noise levels ({}) than this model ({}); take a guide with the same "
                "schedule and the same settings of it".format(*names)
            )
        self.guide = guide

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        weight = self.weight_at(level)
        if bool((weight == 1).all()):
            return prediction
        return extrapolated(self.guide(x_t, level, class_label), prediction, weight)


def _same_levels(one: NoiseSchedule, other: NoiseSchedule) -> bool:
    """Whether two schedules have the same levels at the same times."""
    first, second = one.probe(), other.probe()
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-6) for a, b in zip(first, second, strict=True))
