"""The quality of vector samples: distances from fresh data, with a noise floor and classical baselines."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

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
)
from litdiffusion.measure.quality.base import Measured, Quality
from litdiffusion.measure.quality.modes import mode_estimates

T = TypeVar("T")

FRESH = 8
"""The number of independent data draws for each comparison."""
FLOOR_PAIRS = 30
"""The number of pairs of data draws for the noise floor; a third of it for distances of O(n²) cost."""
PAIRWISE_POINTS = 2000
"""The largest n for distances of O(n²) cost."""
RIVALS = {"kernel density": kernel_density_samples, "gaussian mixture": gaussian_mixture_samples}


class VectorQuality(Quality):
    """Distances between samples and fresh data, in units of the data, and as multiples of their noise floor.

    ``name`` is the mean distance over pairs of a set of n samples and a fresh data draw of n points.
    ``name_over_floor`` is its ratio to the noise floor, the mean distance of two data draws: 1 for a perfect sampler.
    Where the data are a mixture, ``mode_k`` is the weight of each mode, and ``mode_error`` half the sum of the absolute
    errors of these weights.

    Spreads are those of one set, measured over the sets (0.8 to 0.9 of the true one for 5 sets). For a single set they
    are over single data draws, at most twice the true one: 1.6 to 2.0 times for perfect samples, 1.0 to 1.4 for
    samples off by a tenth of the data's std. They leave out the uncertainty of the floor.

    Args:
        distances: of wasserstein (exact W1 in one dimension, else sliced W2), energy and mmd. wasserstein is required,
            for the headline. energy and mmd take at most 2000 points.
    """

    headline = "wasserstein_over_floor"
    title = "Wasserstein distance"
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
        self._kept: dict[tuple, Any] = {}

    def attach(self, data: DataModule) -> "VectorQuality":
        if len(data.shape) != 1:
            raise UserError(f"metrics=vectors measures points, but items of {data.name} have shape {tuple(data.shape)}")
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
            values |= {name: estimate, f"{name}_over_floor": estimate.over(floor.value)}
        return values | mode_estimates(samples, self.data)

    def rivals(self, n: int, level: Level = CLEAN) -> dict[str, Measured]:
        sets = self.rival_samples(n, level)
        rows = {name: self._once((name, n, level), partial(self.measure, sets[name], level=level)) for name in RIVALS}
        return {"data": self._floors(n, level), **rows}

    def rival_samples(self, n: int, level: Level = CLEAN) -> dict[str, Tensor]:
        """n points (n, d) of fresh data, and of each baseline, fitted to the training data."""
        train = self._noised(self.data.training_reference(len(self.data.train.data)), level, -1)
        sets = {name: self._once(("set", name, n, level), partial(draw, train, n, 0)) for name, draw in RIVALS.items()}
        return {"data": self.fresh(n, 1000, level), **sets}

    def legend(self) -> str:
        return (
            f"distances of n samples to {FRESH} fresh data draws of n points; their ratio to the noise floor, the mean "
            f"distance of {FLOOR_PAIRS} pairs of data draws ({FLOOR_PAIRS // 3} for energy and mmd)"
        )

    def fresh(self, n: int, seed: int, level: Level = CLEAN) -> Tensor:
        """n data points (n, d): fresh draws where the data have a law, else training points drawn with replacement."""
        data = self.data
        if hasattr(data, "draw"):
            return self._noised(data.draw(n, fold_seed(seed, "fresh", n)), level, seed)
        whole = data.training_reference(len(data.train.data))
        # Without replacement two draws of the whole set would be equal, with distance 0.
        chosen = torch.randint(len(whole), (n,), generator=torch.Generator().manual_seed(fold_seed(seed, "fresh", n)))
        return self._noised(whole[chosen], level, seed)

    def _noised(self, x: Tensor, level: Level, seed: int) -> Tensor:
        if level.is_clean:
            return x
        x_0, noise = self.codec.encode(x), seeded_noise(fold_seed(seed, "blur", len(x)))
        return self.codec.decode(diffuse(x_0, noise(x_0), level))

    def _distance(self, name: str) -> Distance:
        scale = self.data.training_reference(PAIRWISE_POINTS).double().std(dim=0, correction=0).mean().item() or 1.0
        wasserstein, mmd = distance_for(self.data.shape[0]), partial(kernel_mmd, scale=scale)
        return {"wasserstein": wasserstein, "energy": energy_distance, "mmd": mmd}[name]

    def _against_data(self, name: str, sets: Sequence[Tensor], level: Level) -> Estimate:
        distance, n = self._distance(name), _affordable(name, len(sets[0]))
        fresh = self._once(("fresh", n, level), lambda: [self.fresh(n, 1000 + k, level) for k in range(FRESH)])
        table = torch.tensor([[distance(x[:n], y) for y in fresh] for x in sets], dtype=torch.float64)
        independent = table.mean(1) if len(sets) > 1 else table[0]
        return Estimate(table.mean().item(), independent.std().item(), n)

    def _floors(self, n: int, level: Level) -> Measured:
        floors = {name: self._floor(name, n, level) for name in self.distances}
        ratios = {f"{name}_over_floor": floor.over(floor.value) for name, floor in floors.items()}
        return floors | ratios | mode_estimates(self.fresh(n, 1000, level), self.data)

    def _floor(self, name: str, n: int, level: Level) -> Estimate:
        distance, n = self._distance(name), _affordable(name, n)
        pairs = FLOOR_PAIRS if name == "wasserstein" else FLOOR_PAIRS // 3

        def measured() -> Estimate:
            draws = [(self.fresh(n, 2 * i, level), self.fresh(n, 2 * i + 1, level)) for i in range(pairs)]
            values = torch.tensor([distance(x, y) for x, y in draws], dtype=torch.float64)
            return Estimate(values.mean().item(), values.std().item(), n)

        return self._once(("floor", name, n, level), measured)

    def _once(self, key: tuple, make: Callable[[], T]) -> T:
        """The result of ``make``, computed once per key while the data stay the same."""
        key = tuple(float(part.sigma) if isinstance(part, Level) else part for part in key)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def _affordable(name: str, n: int) -> int:
    """n, or its limit for distances of O(n²) cost."""
    return n if name == "wasserstein" else min(n, PAIRWISE_POINTS)
