"""Numbers to places on an axis, linear or logarithmic, and the ticks of the axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOG_RATIO = 6
"""Positive values that span at least this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Scale:
    """Maps ``low``..``high`` to ``start``..``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        position = (self._of(value) - self._of(self.low)) / (self._of(self.high) - self._of(self.low))
        return round(self.start + (self.end - self.start) * position, 2)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round numbers inside the axis."""
        found = _log_ticks(self.low, self.high, count) if self.log else []
        return found if len(found) > 1 else _linear_ticks(self.low, self.high, count)

    def _of(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value


def scale_for(values: Sequence[float], start: float, end: float, log: bool | None = None, pad: float = 0.05) -> Scale:
    """The axis that holds all values, with a margin; ``log=None``: logarithmic if the values call for it."""
    low, high = min(values), max(values)
    if log is None:
        log = low > 0 and high / low >= LOG_RATIO
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    if log:
        factor = (high / low) ** pad
        return Scale(low / factor, high * factor, start, end, True)
    margin = (high - low) * pad
    return Scale(low - margin, high + margin, start, end)


def tick_text(value: float) -> str:
    """A tick as short as it can be written."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.6g}"


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= count + 1:
            return inside
    return inside[:: math.ceil(len(inside) / count)]
