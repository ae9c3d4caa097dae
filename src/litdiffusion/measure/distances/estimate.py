"""A number with its uncertainty."""

import math
from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """A value, its spread (one standard deviation of the value), and the number n of items behind it.

    The function that returns an estimate documents how it computes the spread, and what the spread leaves out.
    """

    value: float
    spread: float
    n: int

    def over(self, divisor: float) -> "Estimate":
        """The ratio of this estimate to an exact ``divisor``."""
        return Estimate(self.value / divisor, self.spread / divisor, self.n)


def mean_estimate(values: Tensor) -> Estimate:
    """The mean of independent values (n,), n >= 2, with its standard error ``std / sqrt(n)``.

    Equal values have spread 0. A share of 0 or 1 is still uncertain by about 3 / n.

    Raises:
        ValueError: for fewer than 2 values.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a mean with a spread needs values (n,) with n >= 2, got {tuple(values.shape)}")
    values = values.detach().double()
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)), len(values))
