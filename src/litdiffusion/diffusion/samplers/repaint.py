"""Inpainting with an ordinary denoiser: the known part of the data is inserted at every level."""

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
    """Draws the unknown part of data whose other part is ``known`` (where ``mask`` is true).

    Every step t -> s is an ancestral step, after which the known part is inserted at the noise level s:
    ``x_s = mask * (alpha_s * known + sigma_s * eps) + (1 - mask) * step(x_t)`` with new noise eps. The two parts do not
    match, because the ancestral step did not use this eps. Therefore x_s is noised back to t by the forward transition
    and the step is repeated, ``resample`` times in total. The step to clean data is taken once and returns the known
    part exactly as given. If nothing is known, RePaint samples p(x).

    resample = 1 is plain replacement, which hardly conditions the samples on the known part. With larger values the
    samples slowly approach p(unknown | known), at a proportional cost. The weights of distant modes are decided while
    the known part is still noisy, which leaves a bias. Example: two moons, cut where 37 % of the data lie on the upper
    moon; it gets 50 % of the samples for resample = 1, 47 % for 20 and 43 % for 120 (exact denoiser, 40 steps).
    Repetition also repeats the error of a step's variance: with few steps "posterior" gives too narrow a result;
    "forward" is right if the noise is small compared with the std of the data.

    Args:
        known: (B, ...) or broadcastable to the samples, in model space; ignored where the mask is false.
        mask: true or 1 where ``known`` is known, false or 0 elsewhere; broadcastable to ``known``.
        steps: number of steps from the noisiest level to clean data, as for every sampler.
        resample: how often each step is taken; 10 in the source, with 250 steps.
        variance: variance of the ancestral step: posterior, forward or learned.
        grid: spacing of the levels; if it is coarse near clean data, the two parts match poorly.

    Raises:
        UserError: for a mask of another shape or with values other than 0 and 1, known values that are not finite,
            resample < 1, or a process with a single level.

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
        """Raises a `UserError` for a process with a single level, and for the same reasons as `Sampler.check`."""
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
            x = self._step_with_known(predict, x, now, after, noise)
            for _ in range(0 if after.is_clean else self.resample - 1):
                scale, variance = transition(after, now)
                x = mix(scale, x, variance.sqrt(), noise(x))
                x = self._step_with_known(predict, x, now, after, noise)
            yield x

    def _step_with_known(self, predict: Predict, x: Tensor, now: Level, after: Level, noise: Noise) -> Tensor:
        return self._with_known(self.reverse.step(x, predict(x, now), now, after, noise), after, noise)

    def _with_known(self, x: Tensor, level: Level, noise: Noise) -> Tensor:
        known = self.known.to(x)
        noised = known if level.is_clean else diffuse(known, noise(x), level)
        return torch.where(self.mask.to(x.device), noised, x)


def _checked_mask(mask: Tensor, known: Tensor) -> Tensor:
    """The mask as bool; raises a `UserError` if it does not fit ``known``."""
    if not ((mask == 0) | (mask == 1)).all():
        raise UserError("mask must be true or 1 where known and false or 0 elsewhere, got other values; threshold it")
    fits = mask.ndim <= known.ndim and all(
        m in (1, k) for m, k in zip(mask.shape[::-1], known.shape[::-1], strict=False)
    )
    if not fits:
        raise UserError(f"mask {tuple(mask.shape)} does not fit known {tuple(known.shape)}; give it the same shape")
    return mask.bool()
