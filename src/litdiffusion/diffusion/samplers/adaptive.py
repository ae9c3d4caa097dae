"""The probability-flow ODE with adaptive steps."""

from collections.abc import Iterator

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import scaled
from litdiffusion.diffusion.levels import Level, Noise
from litdiffusion.diffusion.samplers.base import Predict, Sampler
from litdiffusion.diffusion.samplers.ode import in_angle
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.solver import solve
from litdiffusion.errors import UserError

METHODS = ("dopri5", "dopri8", "bosh3", "adaptive_heun")


class AdaptiveODE(Sampler):
    """Solves the probability flow from t = 1 to the cleanest training time, then returns the denoiser's x_0.

    The equation is ``dy / dphi = cos(phi) eps - sin(phi) x_0`` for y = x / r, over the angle phi = atan(sigma / alpha):
    the same for every schedule, of unit size, regular at both ends. ``steps`` is only the number of returned states.
    The solver chooses its own steps for the whole batch, so a sample depends on its batch within the tolerance.

    Args:
        steps: number of returned states.
        rtol: tolerated error of a step relative to y.
        atol: tolerated absolute error of a step in y.
        method: name of the method of torchdiffeq.

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
        reason = "its net is trained at the levels of a chain only, and the solver evaluates it between them"
        return super().unfit(schedule) or (reason if schedule.steps is not None else None)

    def calls(self, schedule: NoiseSchedule) -> None:
        return None

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        schedule = predict.schedule
        last = schedule.at(min(schedule.t_min, levels[-2].t.item()))
        # The solver needs distinct positions, so levels that equal ``last`` are left out.
        noisier = [level for level in levels[:-1] if level.sigma > last.sigma * (1 + 1e-9)]
        points = [in_angle(schedule, level) for level in [*noisier, last]]
        angles = torch.stack([point.position for point in points]).to(x.device)

        def slope(angle: Tensor, y: Tensor) -> Tensor:
            level = schedule.at_angle(angle)
            point = in_angle(schedule, level)
            return point.slope(predict(scaled(point.scale, y), level))

        start = scaled(1 / points[0].scale, x)
        states = solve(slope, start, angles, self.rtol, self.atol, self.method, "take sampler=unipc")
        for index in range(1, len(levels) - 1):
            yield scaled(points[index].scale, states[index])
        yield predict(scaled(points[-1].scale, states[-1]), last).x_0
