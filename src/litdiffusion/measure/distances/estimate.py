"""A number with its uncertainty, and the two ways this package gets one."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A value, one standard deviation of it, and the number n of items it rests on.

    How the spread was got, and what it leaves out, stands where the estimate is made.
    """

    value: float
    spread: float
    n: int


def mean_estimate(values: Tensor) -> Estimate:
    """The mean of independent values (n,), n >= 2, with its standard error ``std / sqrt(n)``.

    Where all values are equal the spread is 0: a share of 0 or 1 is then known to about 3 / n all the same.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a mean with a spread needs values (n,) with n >= 2, got {tuple(values.shape)}")
    values = values.detach().double()
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)), len(values))


def bootstrap(statistic: Callable[[Tensor], float], x: Tensor, repeats: int = 20, seed: int = 0) -> Estimate:
    """``statistic(x)`` for items (n, ...), and its standard deviation over ``repeats`` resamples with replacement.

    20 repeats give the spread to ``1 / sqrt(2·19)``, 16 %. It tells how the value would vary between samples of
    n items. It leaves out a bias that n items share, as the Fréchet distance has. Raises ValueError below 2
    items or 2 repeats. Source: An Introduction to the Bootstrap, Efron and Tibshirani 1993.
    """
    if len(x) < 2 or repeats < 2:
        raise ValueError(f"a bootstrap needs at least 2 items and 2 repeats, got {len(x)} and {repeats}")
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randint(len(x), (len(x),), generator=generator).to(x.device) for _ in range(repeats)]
    resampled = torch.tensor([statistic(x[index]) for index in draws], dtype=torch.float64)
    return Estimate(statistic(x), float(resampled.std()), len(x))
