"""The probability-flow ODE with an error control that chooses its own steps."""

from collections.abc import Iterator

import torch
from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.gaussian import mix
from litdiffusion.samplers.base import Predict, Sampler
from litdiffusion.schedules import NoiseSchedule
from litdiffusion.types import Level, Noise

METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


class AdaptiveODE(Sampler):
    """``dx / dt = alpha' x_0 + sigma' eps`` from t = 1 to the cleanest trained time within tolerances, then x_0.

    ``steps`` only says how many states are shown; the solver chooses its own, for the whole batch at once, so that a
    sample depends on its batch within the tolerance.

    Args:
        steps: states shown.
        rtol: tolerated error of a step relative to x.
        atol: tolerated absolute error, in units of the data.
        method: of torchdiffeq.

    Source: Song et al., 2020, arXiv 2011.13456, section 4.3; solvers: Chen, "torchdiffeq", 2018.
    """

    name = "ode"

    def __init__(self, steps: int | None = 25, rtol: float = 1e-4, atol: float = 1e-4, method: str = "dopri5"):
        super().__init__(steps)
        if method not in METHODS:
            raise UserError(f"sampler.method must be one of {', '.join(METHODS)}, got {method!r}")
        if not (rtol > 0 and atol > 0):
            raise UserError(f"sampler.rtol and sampler.atol must be positive, got {rtol} and {atol}; 1e-4 is usual")
        self.rtol, self.atol, self.method = rtol, atol, method

    @classmethod
    def unfit(cls, schedule: NoiseSchedule) -> str | None:
        chain = "its net knows the levels of a chain only, and the solver asks between them"
        return super().unfit(schedule) or (chain if schedule.steps is not None else None)

    def calls(self, schedule: NoiseSchedule) -> None:
        return None

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        from torchdiffeq import odeint

        schedule = predict.schedule
        times = torch.stack([level.t for level in levels[:-1]] + [levels[0].t * 0 + schedule.t_min]).unique().flip(0)

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            level = schedule.at(t.double())
            a, b = schedule.rates(level.t)
            prediction = predict(x, level)
            return mix(a, prediction.x_0, b, prediction.eps)

        with torch.no_grad():
            states = odeint(velocity, x, times.to(x.device), rtol=self.rtol, atol=self.atol, method=self.method)
        for index in range(1, len(levels) - 1):
            yield states[index]
        yield predict(states[-1], schedule.at(schedule.t_min)).x_0
