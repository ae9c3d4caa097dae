"""The one linear system behind every training target."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described

SINGULAR = 1e-8
"""Below this |det| float32 can no longer separate x_0 from eps."""


class Parameterization(Described, ABC):
    """A row (a, b): the net learns ``target = a * x_0 + b * eps``.

    Together with ``x_t = alpha * x_0 + sigma * eps`` this is a 2x2 linear system with ``det = alpha * b - sigma * a``.
    Its solution gives both unknowns from the output:
    ``x_0 = (b * x_t - sigma * out) / det``, ``eps = (alpha * out - a * x_t) / det``.
    An output error Δout becomes ``|Δx_0| = sigma / |det| * |Δout|`` and ``|Δeps| = alpha / |det| * |Δout|``.
    """

    @abstractmethod
    def row(self, level: Level) -> tuple[Tensor, Tensor]:
        """The coefficients (a, b) at a level, each shaped like ``level.t``."""

    def det(self, level: Level) -> Tensor:
        """``alpha * b - sigma * a``, shaped like ``level.t``."""
        a, b = self.row(level)
        return level.alpha * b - level.sigma * a

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """The training target ``a * x_0 + b * eps``, shaped like x_0."""
        a, b = self.row(level)
        return mix(a, x_0, b, eps)

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """x_0 and eps from the net's output, both shaped like x_t."""
        a, b = self.row(level)
        det = self.det(level)
        x_0 = mix(b / det, x_t, -level.sigma / det, out)
        eps = mix(level.alpha / det, out, -a / det, x_t)
        return Prediction(x_0, eps)

    def input_scale(self, level: Level, sigma_data: float = 1.0) -> Tensor:
        """The factor of the net's input x_t: ``1 / sqrt(alpha² s² + sigma²)``, s = sigma_data, shaped like ``level.t``.

        It gives unit variance for data of std s, and for s = 1 is 1 on a variance-preserving schedule.
        """
        return 1 / torch.hypot(level.alpha * sigma_data, level.sigma)

    def output_scale(self, level: Level) -> Tensor:
        """The factor of the net's raw output, shaped like ``level.t``; 1 if targets have one size at all levels."""
        return torch.ones_like(level.alpha)

    def check(self, schedule: NoiseSchedule) -> None:
        """Raises a `UserError` if x_0 and eps cannot be separated at a training level (|det| reaches 0)."""
        level = schedule.probe()
        det = self.det(level).abs()
        worst = det.argmin()
        if not det[worst] > SINGULAR:
            raise UserError(
                f"{type(self).__name__} cannot be decoded at t = {level.t[worst]:.4g}, where alpha = "
                f"{level.alpha[worst]:.3g} and sigma = {level.sigma[worst]:.3g} (|det| = {det[worst]:.1e}, must exceed "
                f"{SINGULAR:.0e}); take parameterization=v (or flow), or a schedule that ends before that"
            )
