"""The loss that also learns the variance of the reverse steps."""

from torch import Tensor

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.likelihood.bound import DECODERS, bound_term
from litdiffusion.diffusion.objectives.denoising import DenoisingObjective
from litdiffusion.diffusion.times import TimeSampler
from litdiffusion.diffusion.weightings import Weighting
from litdiffusion.errors import UserError

BYTES = (-1.0, 1.0)
"""The range of values that stand for bytes, ``k / 127.5 - 1``."""


class HybridObjective(DenoisingObjective):
    """``w(t) * |out - target|² + factor * T * L_i / d``: the denoising loss, and the variational bound for the spread.

    ``L_i`` is the bound's term of the drawn step in nats (`bound_term`) and d the number of coordinates. With uniform
    times the second part therefore has the expectation ``factor * L_vlb``, the whole bound (but for the prior's
    constant) in nats per coordinate: as large for any T and any size of the data, beside a mean over coordinates. In it
    x_0 is detached: its gradient reaches the spread alone (and the layers below), the mean is learned by the first part
    alone. Nothing else reaches the spread's own weights, so the factor only sets the bound's share in the layers that
    both use. Times of another law without `TimeSampler.importance` weigh the terms by it, and move no term's optimum.

    Args:
        times: which levels to train on.
        weighting: of the first part; the source takes 1 on epsilon.
        decoder: of the first step: "8bit" for bytes in [-1, 1], "gaussian" for other data; None decides by the range.
        factor: the source's lambda, 0.001. Its program counts bits: the same number there weighs 1.44 times more.
        value_range: of the data, where ``decoder`` is None; that of bytes is (-1, 1).

    Raises:
        UserError: an unknown decoder, or a factor that is not positive.

    Source: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, arXiv 2102.09672, equation 16.
    """

    def __init__(
        self,
        times: TimeSampler,
        weighting: Weighting,
        decoder: str | None = None,
        factor: float = 0.001,
        value_range: tuple[float, float] | None = None,
    ):
        super().__init__(times, weighting)
        decoder = decoder or ("8bit" if value_range is not None and tuple(value_range) == BYTES else "gaussian")
        if decoder not in DECODERS:
            raise UserError(f"objective.decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
        if not factor > 0:
            raise UserError(f"objective.factor must be positive, got {factor}; 0.001 is usual")
        self.decoder, self.factor = decoder, factor

    def check(self, denoiser: Denoiser) -> None:
        """Refuses a denoiser without a learned variance."""
        if not denoiser.learned_variance:
            raise UserError(
                "the hybrid objective learns a variance, this denoiser has none; set learned_variance=true, or take "
                "objective=denoising"
            )

    def extra(
        self, denoiser: Denoiser, x_0: Tensor, x_t: Tensor, level: Level, out: Tensor, variance_fraction: Tensor
    ) -> Tensor:
        """``factor * T * L_i / d`` (B,)."""
        prediction = denoiser.parameterization.decode(out.detach(), x_t, level)._replace(
            variance_fraction=variance_fraction
        )
        nats = bound_term(denoiser.schedule, x_0, prediction, level, self.decoder)
        return self.factor * denoiser.schedule.steps / x_0[0].numel() * nats
