"""Samples of points beside fresh data, beside the noise floor, and beside classical density estimates."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.data import DataModule
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import CLEAN, Level, seeded_noise
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError, nearest
from litdiffusion.measure.distances import (
    Distance,
    Estimate,
    distance_for,
    energy_distance,
    gaussian_mixture_samples,
    kernel_density_samples,
    kernel_mmd,
    mode_shares,
    total_variation,
)
from litdiffusion.measure.quality.base import Measured, Quality

FRESH = 8
"""Independent data draws that each set of samples is compared with."""
FLOOR_PAIRS = 30
PAIRWISE_POINTS = 2000
"""At most, for distances whose cost grows with the square."""
RIVALS = {"kernel density": kernel_density_samples, "gaussian mixture": gaussian_mixture_samples}


class Measure(NamedTuple):
    """A distance, and the number of points that it can afford."""

    distance: Distance
    most: int | None


class VectorQuality(Quality):
    """Distances between samples and fresh data, in units of the data, and as multiples of their noise floor.

    ``name`` is the mean over pairs of a set of n samples and a fresh data draw of n points, ``name_over_floor`` that
    over the mean distance of two data draws: 1 for a perfect sampler, with the spread of the floor left out. The spread
    is the standard deviation over sets of samples; with one set, over the data draws. Where the data are a mixture also
    the weight of each mode, ``mode_k``, and ``mode_error``, half the sum of their absolute errors.

    Args:
        distances: of wasserstein (exact W1 in one dimension, else sliced W2), energy, mmd; the first must be
            wasserstein, the headline. energy and mmd look at 2000 points at most.
    """

    headline = "wasserstein_over_floor"
    live = 2000

    def __init__(self, distances: Sequence[str] = ("wasserstein", "energy", "mmd")):
        super().__init__()
        known = ("wasserstein", "energy", "mmd")
        for name in distances:
            if name not in known:
                raise UserError(f"metrics.distances={name}{nearest(name, known)}: must be of {', '.join(known)}")
        if "wasserstein" not in distances:
            raise UserError("metrics.distances must hold wasserstein, the headline of every table")
        self.distances = tuple(distances)
        self.names = tuple(f"{name}{end}" for name in distances for end in ("", "_over_floor"))
        self._kept: dict[tuple, object] = {}

    def attach(self, data: DataModule) -> "VectorQuality":
        if len(data.shape) != 1:
            raise UserError(f"metrics=vectors measures points, this data set has items of shape {tuple(data.shape)}")
        self._kept.clear()
        super().attach(data)
        return self

    def measure(
        self, samples: Tensor, n: int | None = None, level: Level = CLEAN, class_labels: Tensor | None = None
    ) -> Measured:
        samples = samples.detach().cpu()
        n = min(n or len(samples), len(samples))
        sets = samples[: len(samples) // n * n].split(n)
        values: dict[str, Estimate] = {}
        for name in self.distances:
            estimate, floor = self._against_data(name, sets, level), self._floor(name, n, level)
            ratio = Estimate(estimate.value / floor.value, estimate.spread / floor.value, estimate.n)
            values |= {name: estimate, f"{name}_over_floor": ratio}
        return values | self._modes(samples)

    def rivals(self, n: int, level: Level = CLEAN) -> dict[str, Measured]:
        sets = self.rival_samples(n, level)
        rows = {name: self._once((name, n, level), partial(self.measure, sets[name], level=level)) for name in RIVALS}
        return {"data": self._floors(n, level), **rows}

    def rival_samples(self, n: int, level: Level = CLEAN) -> dict[str, Tensor]:
        """n points (n, d) of fresh data, and of each estimate of the density from the same training data."""
        train = self._noised(self.data.training_reference(len(self.data.train.data)), level, -1)
        sets = {name: self._once(("set", name, n, level), partial(draw, train, n, 0)) for name, draw in RIVALS.items()}
        return {"data": self.fresh(n, 1000, level), **sets}

    def legend(self) -> str:
        return (
            f"distances of n samples to {FRESH} fresh data draws of n points, and over the noise floor, the mean "
            f"distance of {FLOOR_PAIRS} pairs of data draws (a third of them for energy and mmd)"
        )

    def fresh(self, n: int, seed: int, level: Level = CLEAN) -> Tensor:
        """n data points (n, d): new ones where the data can draw them, else training points drawn with replacement."""
        data = self.data
        if hasattr(data, "draw"):
            return self._noised(data.draw(n, fold_seed(seed, n)), level, seed)
        whole = data.training_reference(len(data.train.data))
        # With replacement, or two draws of a whole set would be one, and the noise floor between them zero.
        chosen = torch.randint(len(whole), (n,), generator=torch.Generator().manual_seed(fold_seed(seed, n)))
        return self._noised(whole[chosen], level, seed)

    def _noised(self, x: Tensor, level: Level, seed: int) -> Tensor:
        return x if level.is_clean else diffuse(x, seeded_noise(fold_seed(seed, len(x)))(x), level)

    def _measures(self) -> dict[str, Measure]:
        scale = self.data.training_reference(PAIRWISE_POINTS).double().std(dim=0, correction=0).mean().item() or 1.0
        return {
            "wasserstein": Measure(distance_for(self.data.shape[0]), None),
            "energy": Measure(energy_distance, PAIRWISE_POINTS),
            "mmd": Measure(partial(kernel_mmd, scale=scale), PAIRWISE_POINTS),
        }

    def _against_data(self, name: str, sets: Sequence[Tensor], level: Level) -> Estimate:
        distance, most = self._measures()[name]
        n = min(len(sets[0]), most or len(sets[0]))
        fresh = self._once(("fresh", n, level), lambda: [self.fresh(n, 1000 + k, level) for k in range(FRESH)])
        table = torch.tensor([[distance(x[:n], y) for y in fresh] for x in sets], dtype=torch.float64)
        spread = table.mean(1) if len(sets) > 1 else table[0]
        return Estimate(table.mean().item(), spread.std().item(), n)

    def _floors(self, n: int, level: Level) -> Measured:
        floors = {name: self._floor(name, n, level) for name in self.distances}
        ratios = {f"{k}_over_floor": Estimate(1.0, floor.spread / floor.value, floor.n) for k, floor in floors.items()}
        return floors | ratios | self._modes(self.fresh(n, 1000, level))

    def _floor(self, name: str, n: int, level: Level) -> Estimate:
        distance, most = self._measures()[name]
        n = min(n, most or n)

        def measured() -> Estimate:
            pairs = FLOOR_PAIRS if most is None else FLOOR_PAIRS // 3
            draws = [self.fresh(n, seed, level) for seed in range(2 * pairs)]
            values = torch.tensor([distance(x, y) for x, y in pairwise(draws)][::2], dtype=torch.float64)
            return Estimate(values.mean().item(), values.std().item(), n)

        return self._once(("floor", name, n, level), measured)

    def _modes(self, samples: Tensor) -> dict[str, Estimate]:
        """The weights of the modes, where the data are a mixture; their spread is binomial."""
        law = getattr(self.data, "mixture", None)
        if law is None:
            return {}
        n, shares = len(samples), torch.tensor(mode_shares(samples, law.means), dtype=torch.float64)
        spreads = (shares * (1 - shares) / n).sqrt()
        modes = {
            f"mode_{k}": Estimate(*row, n) for k, row in enumerate(zip(shares.tolist(), spreads.tolist(), strict=True))
        }
        error = total_variation(shares, law.weights.double())
        return modes | {"mode_error": Estimate(error, spreads.norm().item() / 2, n)}

    def _once(self, key: tuple, make):
        """Kept for the run: the data do not change."""
        key = tuple(float(part.sigma) if hasattr(part, "sigma") else part for part in key)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
