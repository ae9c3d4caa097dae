"""The base class of all discrete chains: T levels at the times t = i / T."""

from abc import abstractmethod

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules.base import NoiseSchedule
from litdiffusion.errors import UserError


class Chain(NoiseSchedule):
    """Levels i = 1..T at t = i / T, and clean data at i = 0.

    Each level is given by one number ``c``, which decreases with i. Between two levels c is linear in t, so that the
    chain is also a schedule in continuous time that contains every level exactly. A subclass defines ``c``.

    Args:
        coordinates: (T + 1,) values of c in float64, the first one for clean data.
    """

    def __init__(self, coordinates: Tensor):
        self.steps: int = len(coordinates) - 1
        # Plain tensors, not buffers, because modules cast their buffers to the training precision.
        self._tables = {coordinates.device: (coordinates, *self._scales(coordinates))}

    @abstractmethod
    def _scales(self, coordinate: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) from c."""

    @abstractmethod
    def _coordinate(self, log_snr: Tensor) -> Tensor:
        """c from log SNR."""

    @abstractmethod
    def _rates(self, slope: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """``(d alpha / dt, d sigma / dt)`` from ``dc / dt``."""

    @property
    def t_min(self) -> float:
        return 1 / self.steps

    @property
    def noise_label_range(self) -> tuple[float, float]:
        return 1.0, float(self.steps)

    def at(self, t: Tensor | float) -> Level:
        t = torch.as_tensor(t, dtype=torch.float64)
        start, end, fraction = self._cell(t)
        return Level(t, *self._scales(torch.lerp(start, end, fraction)))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        level = self.at(t)
        start, end, _ = self._cell(level.t)
        return self._rates((end - start) * self.steps, level)

    def time(self, log_snr: Tensor) -> Tensor:
        coordinate = self._coordinate(log_snr.to(torch.float64))
        table = self._tables_on(log_snr.device)[0]
        cell = (torch.searchsorted(-table, -coordinate) - 1).clamp(0, self.steps - 1)
        fraction = (coordinate - table[cell]) / (table[cell + 1] - table[cell])
        return ((cell + fraction) / self.steps).clamp(0.0, 1.0)

    def snap(self, t: Tensor) -> Level:
        i = self._position(t).ceil().clamp(1, self.steps)
        _, alphas, sigmas = self._tables_on(t.device)
        return Level(i / self.steps, alphas[i.long()], sigmas[i.long()])

    def previous(self, level: Level) -> Level:
        """The next cleaner level of the chain."""
        return self.at((self.noise_label(level) - 1) / self.steps)

    def noise_label(self, level: Level) -> Tensor:
        """The index i = t * T, rounded, as nets for discrete chains expect it."""
        return (level.t * self.steps).round()

    def grid(self, steps: int | None = None) -> list[Level]:
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.steps:
            raise UserError(
                f"sampler steps = {steps} must lie in 1..{self.steps}, the length of the trained chain; "
                f"give fewer steps, or null for all of them"
            )
        indices = torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64).round()
        return self.at(indices / self.steps).unbind()

    def probe(self) -> Level:
        return self.at(torch.arange(1, self.steps + 1, dtype=torch.float64) / self.steps)

    def _position(self, t: Tensor) -> Tensor:
        """``t * T``, reduced by a relative 1e-14."""
        # Because i / T * T may exceed i by the last bit, and level i belongs to the cell that ends at i.
        return t * (self.steps * (1 - 1e-14))

    def _cell(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c at both ends of the cell ((i - 1) / T, i / T] that contains t, and the fraction of the cell below t."""
        table = self._tables_on(t.device)[0]
        end = self._position(t).ceil().clamp(1, self.steps).long()
        # take, because an index of no dimensions would be read by the host, and make a GPU wait.
        return table.take(end - 1), table.take(end), (t * self.steps - end).add(1)

    def _tables_on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """c, alpha and sigma of the levels 0..T, each (T + 1,), on a device."""
        if device not in self._tables:
            c, alpha, sigma = next(iter(self._tables.values()))
            self._tables[device] = c.to(device), alpha.to(device), sigma.to(device)
        return self._tables[device]
