"""Clipping: keeps the predicted x_0 inside the value range of the data."""

from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper, with_x_0
from litdiffusion.diffusion.levels import Level, Prediction


class ClippedDenoiser(DenoiserWrapper):
    """Clamps the x_0 of another denoiser to ``[low, high]`` and sets ``eps = (x_t - alpha * x_0) / sigma``.

    The pair still satisfies ``x_t = alpha * x_0 + sigma * eps``. Values of x_0 inside the range do not change. Needs
    sigma > 0.

    Source: Ho, Jain, Abbeel, 2020, arXiv 2006.11239 (clipping as in its published samples); static thresholding in
    Saharia et al., "Photorealistic Text-to-Image Diffusion Models", 2022, arXiv 2205.11487, section 2.3.
    """

    def __init__(self, denoiser: AnyDenoiser, low: float | Tensor, high: float | Tensor):
        super().__init__(denoiser)
        self.low, self.high = low, high

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        low, high = (end.to(x_t) if isinstance(end, Tensor) else end for end in (self.low, self.high))
        clamped = prediction.x_0.clamp(low, high)  # type: ignore[arg-type]  # both are of one kind
        return with_x_0(prediction, clamped, x_t, level)
