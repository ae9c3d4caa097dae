"""The base class of denoisers that correct the predictions of another denoiser."""

from torch import Tensor, nn

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.schedules import NoiseSchedule


class DenoiserWrapper(nn.Module):
    """A denoiser that corrects the predictions of another one, e.g. by clipping or guidance. Wrappers can be nested.

    A subclass writes `correct`. Samplers call denoisers without gradients. A correction that needs the gradient of a
    prediction overrides ``forward`` and computes it there, under ``torch.enable_grad()`` on a detached x_t.

    Args:
        denoiser: (x_t, level, class_label) -> Prediction, with a ``schedule``.
    """

    def __init__(self, denoiser: AnyDenoiser):
        super().__init__()
        self.denoiser = denoiser

    @property
    def schedule(self) -> NoiseSchedule:
        """The schedule of the wrapped denoiser."""
        return self.denoiser.schedule

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        return self.correct(self.denoiser(x_t, level, class_label), x_t, level, class_label)

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        """The corrected prediction; it must satisfy ``x_t = alpha * x_0 + sigma * eps``, see `with_x_0`."""
        raise NotImplementedError


def with_x_0(prediction: Prediction, x_0: Tensor, x_t: Tensor, level: Level) -> Prediction:
    """The prediction with a new ``x_0`` and the matching noise ``eps = (x_t - alpha * x_0) / sigma``.

    Shapes: x_0 and x_t (B, ...). Needs sigma > 0. The variance fraction does not change.
    """
    return prediction._replace(x_0=x_0, eps=mix(1 / level.sigma, x_t, -level.alpha / level.sigma, x_0))
