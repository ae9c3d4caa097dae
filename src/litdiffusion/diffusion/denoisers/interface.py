"""What samplers, likelihoods and wrappers ask of a denoiser."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.schedules import NoiseSchedule


@runtime_checkable
class AnyDenoiser(Protocol):
    """Whatever maps ``(x_t, level, class_label) -> Prediction`` and has a ``schedule``: a `Denoiser`, or a wrapper."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of the levels."""
        ...

    def __call__(self, x_t: Tensor, level: Level, class_label: Tensor | None = None, /) -> Prediction:
        """The prediction for x_t (B, ...) at a level, for the classes (B,) or for no class."""
        ...
