"""A number with its uncertainty, from a mean or from a bootstrap."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
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


def bootstrap(statistic: Callable[[Tensor], float], x: Tensor, repeats: int = 20, seed: int = 0) -> Estimate:
    """``statistic(x)`` for items (n, ...), and its standard deviation over ``repeats`` resamples with replacement.

    The spread estimates how the value varies between samples of n items; 20 repeats give it to ``1 / sqrt(2·19)``,
    16 %. It leaves out a bias at finite n, as the Fréchet distance has.

    Raises:
        ValueError: for fewer than 2 items, or fewer than 2 repeats.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    from scipy import stats

    if len(x) < 2 or repeats < 2:
        raise ValueError(f"a bootstrap needs at least 2 items and 2 repeats, got {len(x)} and {repeats}")

    def of_items(index: np.ndarray) -> float:
        return statistic(x[torch.from_numpy(index).to(x.device)])

    options = {"n_resamples": repeats, "vectorized": False, "method": "percentile"}
    resampled = stats.bootstrap((np.arange(len(x)),), of_items, **options, random_state=np.random.default_rng(seed))
    return Estimate(statistic(x), float(resampled.standard_error), len(x))
