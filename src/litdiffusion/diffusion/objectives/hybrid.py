"""The loss that also trains the variance of the reverse steps."""

from typing import cast

from torch import Tensor

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.likelihood.bound import DECODERS, bound_term
from litdiffusion.diffusion.objectives.denoising import DenoisingObjective
from litdiffusion.diffusion.schedules import Chain
from litdiffusion.diffusion.times import TimeSampler
from litdiffusion.diffusion.weightings import Weighting
from litdiffusion.errors import UserError


class HybridObjective(DenoisingObjective):
    """``w(t) * |out - target|² + factor * T * L_i / d``: the denoising loss plus a bound that trains the variance.

    ``L_i`` is the term of the variational bound for the drawn step in nats (`bound_term`), d the number of coordinates.
    With uniform times the second part has the expectation ``factor * L_vlb``, where L_vlb is the bound without its
    constant prior term, in nats per coordinate. Its size therefore depends neither on T nor on the size of the data.

    The predicted x_0 is detached in the second part: the first part alone trains the mean, the second part trains the
    variance fraction and the layers below it. The variance fraction's own output weights get no other gradient, so
    ``factor`` only sets the bound's share in the shared layers. Non-uniform times without `TimeSampler.importance`
    weight the terms by p(t), which does not change the optimum of any term.

    Args:
        times: sampler of the training times.
        weighting: weight of the first part; the source uses 1 on epsilon.
        decoder: p(x_0 | x_1): "8bit" for bytes in [-1, 1], "gaussian" for other data; None: chosen by ``value_range``.
        factor: the source's lambda, 0.001. The source's program uses bits, so its factor counts 1.44 times more.
        value_range: value range of the data, used if ``decoder`` is None; (-1, 1) means bytes.

    Raises:
        UserError: for an unknown decoder, or a factor that is not positive.

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
        """Raises a `UserError` for a denoiser without a learned variance."""
        if not denoiser.learned_variance:
            raise UserError(
                "the hybrid objective trains a learned variance, this denoiser has none; set learned_variance=true, "
                "or take objective=denoising"
            )

    def extra(
        self, denoiser: Denoiser, x_0: Tensor, x_t: Tensor, level: Level, out: Tensor, variance_fraction: Tensor | None
    ) -> Tensor:
        """``factor * T * L_i / d`` (B,)."""
        prediction = denoiser.parameterization.decode(out.detach(), x_t, level)._replace(
            variance_fraction=variance_fraction
        )
        chain = cast(Chain, denoiser.schedule)  # a learned variance has one, see `check`
        nats = bound_term(chain, x_0, prediction, level, self.decoder)
        return self.factor * chain.steps / x_0[0].numel() * nats
