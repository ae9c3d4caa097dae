"""Inpainting with a denoiser that was trained for nothing of the kind: the known part is put in at every level."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import diffuse, mix, transition
from litdiffusion.diffusion.levels import Level, Noise
from litdiffusion.diffusion.samplers.ancestral import Ancestral
from litdiffusion.diffusion.samplers.base import Predict, Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


class RePaint(Sampler):
    """Draws the unknown part of data whose other part is ``known``, where ``mask`` is true.

    Every transition t -> s takes an ancestral step and then puts in the known part at its own noise,
    ``x_s = mask * (alpha_s * known + sigma_s * eps) + (1 - mask) * step(x_t)``, eps fresh. The two parts hardly agree,
    since the step knew nothing of this eps; therefore x_s is noised back to t by the forward transition, and the whole
    repeated, ``resample`` times in all. The step into clean data is taken once and leaves the known part exactly as
    given. With nothing known it samples p(x).

    resample = 1 is plain replacement: the known part is put in, but hardly conditioned on. With more, samples move
    slowly towards p(unknown | known), at that cost. Modes that lie apart settle their weights while the known part
    is still noisy, and keep some bias: two moons, cut where 37 % of the data lie on the upper one, give it 50 % at 1,
    47 % at 20 and 43 % at 120 (exact denoiser, 40 steps). Repeating also repeats the error of a step's variance:
    "posterior" makes the result too narrow on few steps, "forward" is right where the noise is small against the
    spread of the data.

    Args:
        known: (B, ...) or broadcastable to the samples, in model space; ignored where the mask is false.
        mask: true or 1 where ``known`` is known, false or 0 elsewhere; broadcastable to ``known``.
        steps: transitions from the noisiest level to clean data, as for every sampler.
        resample: how often each of them is taken; 10 in the source, on 250 steps.
        variance: of the ancestral step: posterior, forward or learned.
        grid: how the levels are spread; one that is coarse near clean data joins both parts badly.

    Raises:
        UserError: a mask of another shape or with values besides 0 and 1, known values that are not finite,
            resample < 1, a process of a single level.

    Source: Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022,
    arXiv 2201.09865, algorithm 1; replacement: Song et al., 2020, arXiv 2011.13456, appendix I.2.
    """

    def __init__(
        self,
        known: Tensor,
        mask: Tensor,
        steps: int | None = None,
        resample: int = 20,
        variance: str = "posterior",
        grid: str = "karras",
    ):
        super().__init__(steps, grid)
        if resample < 1:
            raise UserError(f"resample must be at least 1 (plain replacement), got {resample}; 10 to 20 are usual")
        self.mask = _checked_mask(mask, known)
        self.known = torch.where(self.mask, known, 0)
        if not self.known.isfinite().all():
            raise UserError("known holds values that are NaN or infinite where mask is true; mask them out")
        self.resample = resample
        self.reverse = Ancestral(steps, variance, grid)

    @property
    def needs_learned_variance(self) -> bool:
        return self.reverse.needs_learned_variance

    def check(self, schedule: NoiseSchedule, learned_variance: bool = True) -> None:
        """Refuses a process of a single level, a number of steps that it has not, a variance that nobody learned."""
        if reason := self.unfit(schedule):
            raise UserError(
                f"inpainting does not fit this process: {reason}; train one with schedule=linear, vp or edm"
            )
        super().check(schedule, learned_variance)

    def calls(self, schedule: NoiseSchedule) -> int:
        return (len(self.levels(schedule)) - 2) * self.resample + 1

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        x = self._with_known(x, levels[0], noise)
        for now, after in pairwise(levels):
            x = self._down(predict, x, now, after, noise)
            for _ in range(0 if after.is_clean else self.resample - 1):
                scale, variance = transition(after, now)
                x = mix(scale, x, variance.sqrt(), noise(x))
                x = self._down(predict, x, now, after, noise)
            yield x

    def _down(self, predict: Predict, x: Tensor, now: Level, after: Level, noise: Noise) -> Tensor:
        return self._with_known(self.reverse.step(x, predict(x, now), now, after, noise), after, noise)

    def _with_known(self, x: Tensor, level: Level, noise: Noise) -> Tensor:
        known = self.known.to(x)
        noised = known if level.is_clean else diffuse(known, noise(x), level)
        return torch.where(self.mask.to(x.device), noised, x)


def _checked_mask(mask: Tensor, known: Tensor) -> Tensor:
    """The mask as bool; one that does not fit ``known`` is refused."""
    if not ((mask == 0) | (mask == 1)).all():
        raise UserError("mask must be true or 1 where known, false or 0 elsewhere, and nothing between")
    fits = mask.ndim <= known.ndim and all(
        m in (1, k) for m, k in zip(mask.shape[::-1], known.shape[::-1], strict=False)
    )
    if not fits:
        raise UserError(f"mask {tuple(mask.shape)} does not fit known {tuple(known.shape)}; give it the same shape")
    return mask.bool()
