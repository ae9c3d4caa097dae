"""Guidance: samples that follow their class, or the model, more closely than the data do. See docs/guidance.md."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import UserError


class Guidance(DenoiserWrapper):
    """The base class of guidance: weight 1 is the wrapped denoiser, larger weights move away from a weaker prediction.

    A subclass writes `correct` (see `DenoiserWrapper`) and asks `weight_at` for the weight at a noise level. Where that
    is 1 it returns the prediction of the wrapped denoiser, bit for bit, and costs no further call. The learned variance
    stays that of the wrapped denoiser. Clip outside of guidance, not inside.

    Args:
        denoiser: the denoiser to guide.
        weight: finite; 1 is none, 1.5 to 4 are usual.
        interval: guidance acts only where ``low <= sigma / alpha <= high``: [low, high], the noise std in units of the
            data. None: at every level; ``.inf`` as high has no upper end.

    Raises:
        UserError: a weight that is not finite, or an interval that is not ``0 <= low < high``.

    Source of the interval: Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and
    Distribution Quality in Diffusion Models", 2024, arXiv 2404.07724.
    """

    needs_classes: ClassVar[bool] = True
    """Whether only a model that knows classes can be guided."""
    needs_null_class: ClassVar[bool] = False
    """Whether the model must also know p(x), without a class."""
    always: ClassVar[bool] = True
    """Whether ``guidance=auto`` guides every model; False: only models of images that can be guided."""

    def __init__(self, denoiser: AnyDenoiser, weight: float, interval: Sequence[float] | None = None):
        super().__init__(denoiser)
        if not -float("inf") < weight < float("inf"):
            raise UserError(f"the guidance weight must be a finite number, got {weight}; 1.5 to 4 are usual")
        if interval is not None and not (len(interval) == 2 and 0 <= interval[0] < interval[1]):
            raise UserError(
                f"guide.interval must be two numbers 0 <= low < high of sigma / alpha, got {list(interval)}; null is "
                f"every level"
            )
        self.weight = torch.as_tensor(weight, dtype=torch.float64)
        self.low, self.high = interval or (0.0, float("inf"))

    def weight_at(self, level: Level) -> Tensor:
        """The weight, shaped like the level's fields: ``weight`` inside the interval, 1 outside."""
        ratio = level.ratio
        return torch.where((ratio >= self.low) & (ratio <= self.high), self.weight.to(ratio), torch.ones_like(ratio))


def extrapolated(weak: Prediction, strong: Prediction, weight: Tensor) -> Prediction:
    """``weak + weight * (strong - weak)`` for x_0 and eps; ``strong`` gives the rest.

    The two factors sum to 1, so x_0 and eps still satisfy ``x_t = alpha * x_0 + sigma * eps``. Exact for weights 0 and
    1, and for equal predictions.
    """
    weight = weight.to(strong.x_0)
    x_0, eps = (torch.lerp(getattr(weak, name), getattr(strong, name), weight) for name in ("x_0", "eps"))
    return strong._replace(x_0=x_0, eps=eps)
