"""What every denoiser that changes another's answers is made of."""

from torch import Tensor, nn

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.schedules import NoiseSchedule


class DenoiserWrapper(nn.Module):
    """A denoiser that corrects the predictions of another one: clipping, guidance, conditions, in any nesting.

    A subclass writes `correct`. Samplers ask denoisers without gradients; a correction that needs the gradient of a
    prediction overrides ``forward`` and asks for it there, under ``torch.enable_grad()`` on a detached x_t.

    Args:
        denoiser: (x_t, level, class_label) -> Prediction, with a ``schedule``.
    """

    def __init__(self, denoiser: nn.Module):
        super().__init__()
        self.denoiser = denoiser

    @property
    def schedule(self) -> NoiseSchedule:
        """That of the denoiser inside."""
        return self.denoiser.schedule

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        return self.correct(self.denoiser(x_t, level, class_label), x_t, level, class_label)

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        """The corrected prediction; like the given one it must explain x_t, see `with_x_0`."""
        raise NotImplementedError


def with_x_0(prediction: Prediction, x_0: Tensor, x_t: Tensor, level: Level) -> Prediction:
    """The prediction with another ``x_0`` and the noise that then explains x_t, ``eps = (x_t - alpha * x_0) / sigma``.

    Shapes: x_0 and x_t (B, ...). Needs sigma > 0; the spread stays.
    """
    return prediction._replace(x_0=x_0, eps=mix(1 / level.sigma, x_t, -level.alpha / level.sigma, x_0))
