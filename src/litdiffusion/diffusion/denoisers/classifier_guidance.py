"""Classifier guidance: towards images that a classifier recognises."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.guidance import Guidance
from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.wrapper import with_x_0
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction


class ClassifierGuidance(Guidance):
    """``x_0 = x_0(x_t, class) + (weight - 1) * sigma² / alpha * grad log p(class | x_0(x_t, class))``.

    The gradient is taken with respect to x_t, through the net; eps follows from x_0. The classifier has seen clean data
    only, so it is asked about the predicted x_0 and stands in for ``p(class | x_t)``. As sigma -> 0 both agree, and the
    score is that of ``p(x_t | class) * p(class | x_t)^(weight - 1)``, as with classifier-free guidance. For Gaussian
    data and a log-linear classifier it is exact at every level. weight = 1 is the conditional denoiser. Where no
    signal is left (alpha = 0) nothing is added. A call costs about three calls of the net; one without a class, with
    weight = 1 or outside the interval.

    Args:
        denoiser: one that knows classes; it need not know p(x).
        weight, interval: see `Guidance`. (The first source's gradient scale is weight - 1.)
        classifier: x_0 in model space (B, ...) -> logits (B, K).

    Raises:
        UserError: see `Guidance`.

    Source: Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, arXiv 2105.05233, section 4; with
    the predicted x_0: Bansal et al., "Universal Guidance for Diffusion Models", 2023, arXiv 2302.07121, section 3.1.
    """

    def __init__(
        self,
        denoiser: AnyDenoiser,
        weight: float,
        classifier: Callable[[Tensor], Tensor],
        interval: Sequence[float] | None = None,
    ):
        super().__init__(denoiser, weight, interval)
        self.classifier = classifier

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        excess = self.weight_at(level) - 1
        if class_label is None or bool((excess == 0).all()):
            return self.denoiser(x_t, level, class_label)
        prediction, slope = self._slope(x_t, level, class_label)
        scale = torch.where(level.alpha > 0, excess * level.sigma**2 / level.alpha, 0.0)
        return with_x_0(prediction, mix(torch.ones_like(scale), prediction.x_0, scale, slope), x_t, level)

    # Without inference mode, in which Lightning validates and no gradient exists; tensors made in it need a copy.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _slope(self, x_t: Tensor, level: Level, class_label: Tensor) -> tuple[Prediction, Tensor]:
        """The prediction, and the gradient of log p(class | x_0) with respect to x_t."""
        x_t, class_label, level = x_t.detach().clone(), class_label.clone(), Level(*(part.clone() for part in level))
        x_t.requires_grad_()
        prediction = self.denoiser(x_t, level, class_label)
        log_p = self.classifier(prediction.x_0).log_softmax(1).gather(1, class_label[:, None])
        (slope,) = torch.autograd.grad(log_p.sum(), x_t)
        x_0, eps, fraction = prediction
        return Prediction(x_0.detach(), eps.detach(), None if fraction is None else fraction.detach()), slope
