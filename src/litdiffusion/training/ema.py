"""Exponential moving average of a network's weights."""

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from litdiffusion.errors import UserError


class EMA(nn.Module):
    """``average <- d * average + (1 - d) * weights`` after every step, ``d = min(decay, (1 + step) / (10 + step))``.

    The warm-up removes the random initial weights: after k steps the average spans about the last k / 10 steps, until
    it spans ``1 / (1 - decay)``. Buffers are copied. The average is ``self.model``, always in eval mode. It is a
    submodule, so every checkpoint holds it beside the raw weights, and weights are never swapped. It stays in at least
    float32 if the weights go to half precision, which would round its small updates to zero.

    Source: Polyak, Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992, for averaging; the warm-up
    is TensorFlow's ``ExponentialMovingAverage(num_updates)``.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        if not 0 <= decay < 1:
            raise UserError(f"ema_decay must lie in [0, 1) (0 is no averaging), got {decay}; 0.999 is usual")
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self._tensors: list[list[torch.Tensor]] = []
        self._tensors_of: tuple[nn.Module, nn.Module] | None = None

    def random_share(self, steps: int) -> float:
        """Share of the random initial weights in the average after ``steps`` steps, in [0, 1]."""
        # 1000 factors suffice, because those of the warm-up already make the product negligible.
        return math.prod(min(self.decay, (1 + step) / (10 + step)) for step in range(min(steps, 1000)))

    def train(self, mode: bool = True) -> "EMA":
        return self  # because the average is never trained

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "EMA":
        """The method behind ``to``, ``cuda`` and ``half``; the average stays in at least float32."""
        return super()._apply(lambda x: _at_least_float32(fn(x), x), recurse)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the weights that ``model`` has after optimizer step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self._tensors_of != (
            self.model,
            model,
        ):  # walking over the modules at every step would cost more than the update
            self._tensors_of = self.model, model
            self._tensors = [list(m.parameters()) for m in (self.model, model)]
            self._tensors += [list(m.buffers()) for m in (self.model, model)]
            self._same_dtypes = all(a.dtype == w.dtype for a, w in zip(*self._tensors[:2], strict=True))
        averages, weights, copies, buffers = self._tensors
        if not self._same_dtypes:  # because lerp needs equal dtypes
            weights = [weight.to(average.dtype) for average, weight in zip(averages, weights, strict=True)]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for copy_, buffer in zip(copies, buffers, strict=True):
            copy_.copy_(buffer)


def _at_least_float32(moved: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """``moved``; if it is in half precision, ``before`` on the same device in at least float32."""
    half = moved.dtype in (torch.float16, torch.bfloat16)
    return before.to(moved.device, torch.promote_types(before.dtype, torch.float32)) if half else moved
