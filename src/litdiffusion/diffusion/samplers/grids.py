"""Step grids: the levels that a sampler with a given number of steps N visits.

Every grid starts at the noisiest level (t = 1), and its last step leads to clean data. The levels k = 0..N-1, with the
cleanest training time t_min, are:

- uniform: evenly spaced in time (`NoiseSchedule.grid`; for EDM, whose time is sigma, it equals karras);
- quadratic: ``t_k = (1 + k / (N - 1) * (sqrt(t_min) - 1))²``, denser near clean data (Song, Meng, Ermon, 2020,
  arXiv 2010.02502, appendix D.2);
- karras: evenly spaced in ``ratio^(1/7)``, ratio = sigma / alpha (Karras et al., 2022, arXiv 2206.00364, equation 5,
  rho = 7);
- log_snr: evenly spaced in log SNR (Lu et al., "DPM-Solver", 2022, arXiv 2206.00927);
- auto: for an ODE solver in its own coordinate. karras where alpha = 1, as in its source, and uniform on the path of
  flow matching, where half of karras' levels would be near pure noise. Else quadratic, whose steps in the angle
  atan(sigma / alpha) are the most even.

On a chain the levels are rounded to those of the chain. Levels that coincide move to the next free levels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.schedules.continuous import lerp_in_root
from litdiffusion.errors import UserError, nearest

LARGEST_RATIO = 100.0
"""If alpha = 0 at t = 1, grids in sigma / alpha are spaced from this value on; their first level is still t = 1."""


def levels_for(schedule: NoiseSchedule, steps: int | None, grid: str) -> list[Level]:
    """``steps + 1`` 0-dimensional levels from t = 1 down to clean data.

    Raises:
        UserError: for an unknown grid, or a number of steps that the schedule does not have.
    """
    if grid == "auto":
        grid = "uniform" if on_flow(schedule) else "karras" if schedule.explodes else "quadratic"
    if grid == "uniform":
        return schedule.grid(steps)
    if grid not in GRIDS:
        raise UserError(
            f"sampler.grid must be one of auto, uniform, {', '.join(GRIDS)}, got {grid!r}{nearest(grid, [*GRIDS])}"
        )
    count = len(schedule.grid(steps)) - 1  # raises for a number that the schedule does not have
    times = GRIDS[grid](schedule, torch.linspace(0, 1, count, dtype=torch.float64))
    times[0] = 1.0
    if schedule.steps is not None:
        times = _distinct_indices((times * schedule.steps).round().long(), schedule.steps) / schedule.steps
    return [*schedule.snap(times).unbind(), CLEAN]


def on_flow(schedule: NoiseSchedule) -> bool:
    """Whether time is continuous and alpha = 0 at t = 1, as on flow matching's path."""
    return schedule.loses_signal and schedule.steps is None


def _distinct_indices(indices: Tensor, last: int) -> Tensor:
    """The decreasing chain indices without duplicates: a duplicate moves to the nearest free noisier level."""
    count = len(indices)
    falling = torch.arange(count - 1, -1, -1)
    distinct = (indices - falling).flip(0).cummax(0).values.flip(0) + falling
    return distinct.minimum(last - torch.arange(count)).to(torch.float64)


def _quadratic(schedule: NoiseSchedule, place: Tensor) -> Tensor:
    return (1 + place * (schedule.t_min**0.5 - 1)) ** 2


def _karras(schedule: NoiseSchedule, place: Tensor) -> Tensor:
    return schedule.time(-2 * lerp_in_root(*_ends(schedule), place).log())


def _log_snr(schedule: NoiseSchedule, place: Tensor) -> Tensor:
    largest, smallest = _ends(schedule)
    return schedule.time(-2 * torch.lerp(largest.log(), smallest.log(), place))


def _ends(schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """The largest and the smallest sigma / alpha of the grid."""
    largest, smallest = schedule.at(torch.tensor([1.0, schedule.t_min], dtype=torch.float64)).ratio
    return largest.clamp(max=LARGEST_RATIO) if schedule.loses_signal else largest, smallest


GRIDS: dict[str, Callable[[NoiseSchedule, Tensor], Tensor]] = {
    "quadratic": _quadratic,
    "karras": _karras,
    "log_snr": _log_snr,
}
