"""Power-function averages of weights: tracked at two widths, put together at any other width afterwards.

After step t the profile of exponent gamma is ``(gamma + 1) / t^(gamma + 1) * integral_0^t tau^gamma theta(tau) d tau``,
where theta(tau) are the weights after step ceil(tau). Its width is the standard deviation of tau / t under the profile,

    width² = (gamma + 1) / ((gamma + 2)² (gamma + 3)),        gamma = 0: the plain mean, width 0.289.

Unlike an average of a fixed decay it spans the same share of training at every t.

Source: Karras, Aittala, Lehtinen, Hellsten, Aila, Laine, "Analyzing and Improving the Training Dynamics of Diffusion
Models", 2023, arXiv 2312.02696, section 3 and appendix C.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from litdiffusion.errors import UserError

WIDEST = 12**-0.5
"""The width of gamma = 0. Wider profiles (gamma < 0) would give the first steps most weight."""
SNAPSHOTS = "posthoc_ema"
"""The folder of the snapshots in a run's folder."""
LARGEST_ERROR = 0.1
"""Largest relative error of a profile, see `fit`, with which an average is given out."""
ROUNDING = 5e-3
"""The rounding of a number in float16 (2e-4 of its size), in units of how far weights move under an average (4 %).

With 32 snapshots an average is then within 1e-3 of the one tracked in float32 for widths from 0.03 to 0.2, within 2e-3
at 0.02. bfloat16 would be eight times as far off.
"""


class Profile(NamedTuple):
    """The average of exponent ``gamma`` that ends after step ``t``."""

    gamma: float
    t: float
    rounded: bool = False
    """Whether its average is stored in float16."""


def gamma_of(width: float) -> float:
    """The exponent gamma >= 0 of a width in (0, 0.288].

    It is the only root of ``(gamma + 2)² (gamma + 3) width² = gamma + 1`` that is not negative.

    Raises:
        UserError: for another width.
    """
    if not (isinstance(width, int | float) and 0 < width <= WIDEST):
        raise UserError(f"the width of an average must lie in (0, 0.288], got {width}; 0.05 and 0.1 are usual")
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return max(0.0, float(roots.real.max()))


def width_of(gamma: float) -> float:
    """The width of the exponent gamma > -1, see the module."""
    return (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5)


def decay(gamma: float, t: int) -> float:
    """``beta = (1 - 1 / t)^(gamma + 1)``, the decay of step t >= 1: ``average <- beta average + (1 - beta) theta(t)``.

    At t = 1 it is 0: the initial weights have no share.
    """
    return (1 - 1 / t) ** (gamma + 1)


def _columns(profiles: Sequence[Profile]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p.gamma for p in profiles]), np.array([p.t for p in profiles], dtype=float)


def inner(a: Sequence[Profile], b: Sequence[Profile]) -> np.ndarray:
    """The integrals (n, m) over time of the products of n and m profiles.

    For t_a <= t_b it is ``(gamma_a + 1) (gamma_b + 1) / (gamma_a + gamma_b + 1) * (t_a / t_b)^gamma_b / t_b``.
    """
    gamma_a, t_a = (column[:, None] for column in _columns(a))
    gamma_b, t_b = (column[None, :] for column in _columns(b))
    late, exponent = np.maximum(t_a, t_b), np.where(t_a <= t_b, gamma_b, gamma_a)
    overlap = (np.minimum(t_a, t_b) / late) ** exponent / late
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * overlap


def fit(stored: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """The coefficients (n,) of the stored profiles that come nearest to the wanted one, and the relative error.

    They minimise ``|sum_k c_k p_k - p|² / |p|² + rounding² sum_k c_k²`` under ``sum_k c_k = 1``. The second term, over
    the profiles stored in float16, keeps their rounding from being enlarged by large coefficients of opposite signs.
    With the constraint, weights that do not move are given back as they are. The error: ``|sum_k c_k p_k - p| / |p|``.
    """
    size = float(inner([wanted], [wanted])[0, 0])
    gram, target = inner(stored, stored) / size, inner(stored, [wanted])[:, 0] / size
    n = len(stored)
    system = np.ones((n + 1, n + 1))
    system[:n, :n], system[n, n] = gram + np.diag([ROUNDING**2 * p.rounded for p in stored]), 0
    c = np.linalg.lstsq(system, np.append(target, 1.0), rcond=None)[0][:n]
    return c, float(max(0.0, c @ gram @ c - 2 * c @ target + 1)) ** 0.5


def reachable(stored: Sequence[Profile], t: float) -> tuple[float, float]:
    """The narrowest and the widest average after step t that the stored profiles give within `LARGEST_ERROR`."""
    widths = np.geomspace(1e-3, WIDEST, 200)
    good = [w for w in widths if fit(stored, Profile(gamma_of(w), t))[1] <= LARGEST_ERROR]
    tracked = [width_of(profile.gamma) for profile in stored if profile.t == t]
    return float(min([*good, *tracked])), float(max([*good, *tracked]))
