"""A denoiser between two classes."""

from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction


class MixedClasses(DenoiserWrapper):
    """``x_0 = (1 - share) * x_0(x_t, class) + share * x_0(x_t, other)``, and the same for eps.

    The weights sum to 1, so x_0 and eps still satisfy ``x_t = alpha * x_0 + sigma * eps``. At each level the score is
    that of ``p_t(x | class)^(1 - share) * p_t(x | other)^share``, normalised: what is likely in both classes. These are
    not the noised versions of a single density, as with guidance. share = 0 is the denoiser of the class, share = 1
    that of the other; both cost one call, the others two. The learned variance is that of the class. Any net can be
    mixed, however it takes its class labels. Clip and guide inside.

    Args:
        denoiser: one that takes class labels.
        other: the other class of each sample, (B,).
        share: of the other class, in [0, 1].
    """

    def __init__(self, denoiser: AnyDenoiser, other: Tensor, share: float):
        super().__init__(denoiser)
        self.other, self.share = other, share

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        other = self.other.to(x_t.device)
        return super().forward(x_t, level, class_label) if self.share < 1 else self.denoiser(x_t, level, other)

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        if self.share == 0:
            return prediction
        other, share = self.denoiser(x_t, level, self.other.to(x_t.device)), level.sigma.new_tensor(self.share)
        x_0, eps = (mix(1 - share, a, share, b) for a, b in zip(prediction[:2], other[:2], strict=True))
        return prediction._replace(x_0=x_0, eps=eps)
