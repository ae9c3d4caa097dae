"""Step grids: which levels a walk of a given number of steps visits.

Every grid begins at the noisiest level (t = 1), and its last step leads into clean data. Between, with k = 0..N-1 and
the cleanest trained time t_min:

- uniform: even in time (the schedule's own, `NoiseSchedule.grid`; EDM's, whose time is sigma, is karras);
- quadratic: ``t_k = (1 + k / (N - 1) * (sqrt(t_min) - 1))²``, denser at the clean end (Song, Meng, Ermon, 2020,
  arXiv 2010.02502, appendix D.2);
- karras: ``ratio^(1/7)`` even, ratio = sigma / alpha (Karras et al., 2022, arXiv 2206.00364, equation 5, rho = 7);
- log_snr: log SNR even (Lu et al., "DPM-Solver", 2022, arXiv 2206.00927).

A chain is visited at its own levels, each once: where a grid crowds, levels move apart to the next free ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.schedules.continuous import even_in_root
from litdiffusion.errors import UserError, nearest

LARGEST_RATIO = 100.0
"""Where alpha vanishes sigma / alpha has no end: grids in it are laid out from here, and their first level is t = 1."""


def levels_for(schedule: NoiseSchedule, steps: int | None, grid: str) -> list[Level]:
    """``steps + 1`` 0-dimensional levels from t = 1 down to clean data.

    Raises:
        UserError: an unknown grid, or a number of steps that the schedule does not have.
    """
    if grid == "uniform":
        return schedule.grid(steps)
    if grid not in GRIDS:
        raise UserError(
            f"sampler.grid must be one of uniform, {', '.join(GRIDS)}, got {grid!r}{nearest(grid, [*GRIDS])}"
        )
    count = len(schedule.grid(steps)) - 1  # refuses a number that the schedule does not have
    times = GRIDS[grid](schedule, torch.linspace(0, 1, count, dtype=torch.float64))
    times[0] = 1.0
    if schedule.steps is not None:
        times = _apart((times * schedule.steps).round().long(), schedule.steps) / schedule.steps
    return [*schedule.snap(times).unbind(), CLEAN]


def _apart(indices: Tensor, last: int) -> Tensor:
    """Falling indices of a chain, each once: one that is taken moves to the next noisier level, as little as can be."""
    count = len(indices)
    falling = torch.arange(count - 1, -1, -1)
    apart = (indices - falling).flip(0).cummax(0).values.flip(0) + falling
    return apart.minimum(last - torch.arange(count)).to(torch.float64)


def _quadratic(schedule: NoiseSchedule, place: Tensor) -> Tensor:
    return (1 + place * (schedule.t_min**0.5 - 1)) ** 2


def _karras(schedule: NoiseSchedule, place: Tensor) -> Tensor:
    return schedule.time(-2 * even_in_root(*_ends(schedule), place).log())


def _log_snr(schedule: NoiseSchedule, place: Tensor) -> Tensor:
    largest, smallest = _ends(schedule)
    return schedule.time(-2 * torch.lerp(largest.log(), smallest.log(), place))


def _ends(schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """The largest and the smallest sigma / alpha of the walk."""
    largest, smallest = schedule.at(torch.tensor([1.0, schedule.t_min], dtype=torch.float64)).ratio
    return largest.clamp(max=LARGEST_RATIO) if schedule.loses_signal else largest, smallest


GRIDS: dict[str, Callable[[NoiseSchedule, Tensor], Tensor]] = {
    "quadratic": _quadratic,
    "karras": _karras,
    "log_snr": _log_snr,
}
