"""The quality of vectors and sequences: distances from fresh data, with a noise floor and classical baselines."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from litdiffusion.data import DataModule
from litdiffusion.data.digest import tensor_digest
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import CLEAN, Level, seeded_noise
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError, nearest
from litdiffusion.measure.cache import Cached, cached, key_of
from litdiffusion.measure.distances import (
    Estimate,
    PairDistance,
    StagedDistance,
    distance_for,
    energy_distance,
    energy_kernel,
    gaussian_kernels,
    gaussian_mixture_samples,
    kernel_density_samples,
)
from litdiffusion.measure.quality.base import Measured, Quality
from litdiffusion.measure.quality.modes import mode_estimates
from litdiffusion.measure.quality.spectra import spectrum_estimates

T = TypeVar("T")

FRESH = 8
"""The number of independent data draws for each comparison."""
FLOOR_PAIRS = 30
"""The number of pairs of data draws for the noise floor; a third of it for distances of O(n²) cost."""
LIVE = {1: 2000, 2: 256}
"""Number of dimensions of an item -> number of samples for a measurement during training: a sequence costs more."""
PAIRWISE_POINTS = 2000
"""The largest n for distances of O(n²) cost."""
RIVALS = {"kernel density": kernel_density_samples, "gaussian mixture": gaussian_mixture_samples}
# Raise it with every change of floors or baselines that no fact in `VectorQuality._key` shows.
_VERSION = 1


class VectorQuality(Quality):
    """Distances between samples and fresh data, in units of the data, and as multiples of their noise floor.

    A sequence (C, L) counts as the vector of its C · L values, and has ``spectrum_error`` too: these distances hardly
    see its details.

    ``name`` is the mean distance over pairs of a set of n samples and a fresh data draw of n points.
    ``name_over_floor`` is its ratio to the noise floor, the mean distance of two data draws: 1 for a perfect sampler.
    Where the data are a mixture, ``mode_k`` is the weight of each mode, and ``mode_error`` half the sum of the absolute
    errors of these weights.

    Spreads are those of one set, measured over the sets (0.8 to 0.9 of the true one for 5 sets). For a single set they
    are over single data draws, at most twice the true one: 1.6 to 2.0 times for perfect samples, 1.0 to 1.4 for
    samples off by a tenth of the data's std. They leave out the uncertainty of the floor.

    Floors, baselines and the baselines' distances do not depend on the samples. Each is kept in ``cache``, in a file
    ``vectors-<key>.safetensors``. The key changes with the training data, the fresh draws (so with the data's law, the
    noise level and the codec), n, the distances and the libraries. A damaged file is named in a warning and replaced.

    Args:
        distances: of wasserstein (exact W1 in one dimension, else sliced W2), energy and mmd. wasserstein is required,
            for the headline. energy and mmd take at most 2000 points.
        cache: folder for floors and baselines; None: they are computed anew by every object.
    """

    headline = "wasserstein_over_floor"
    title = "Wasserstein distance"

    def __init__(self, distances: Sequence[str] = ("wasserstein", "energy", "mmd"), cache: str | Path | None = None):
        super().__init__()
        known = ("wasserstein", "energy", "mmd")
        for name in distances:
            if name not in known:
                raise UserError(f"metrics.distances={name}{nearest(name, known)}: must be of {', '.join(known)}")
        if "wasserstein" not in distances:
            raise UserError("metrics.distances must hold wasserstein, the headline of every table")
        self.distances = tuple(distances)
        self.cache = None if cache is None else Path(cache).expanduser()
        self.names = tuple(f"{name}{end}" for name in distances for end in ("", "_over_floor"))
        self._kept: dict[tuple, Any] = {}

    def attach(self, data: DataModule) -> "VectorQuality":
        if len(data.shape) > 2:
            shape = tuple(data.shape)
            raise UserError(
                f"metrics=vectors measures points and sequences, but items of {data.name} have shape {shape}"
            )
        self.live = LIVE[len(data.shape)]
        self._kept.clear()
        super().attach(data)
        return self

    def measure(
        self, samples: Tensor, n: int | None = None, level: Level = CLEAN, class_labels: Tensor | None = None
    ) -> Measured:
        samples = samples.detach().cpu().flatten(1)
        n = min(n or len(samples), len(samples))
        sets = samples[: len(samples) // n * n].split(n)
        tables = {name: self._against_data(name, sets, level) for name in self.distances}
        return self._estimates(tables, n, level) | self._further(samples, level)

    def rivals(self, n: int, level: Level = CLEAN, baselines: bool = True) -> dict[str, Measured]:
        names = RIVALS if baselines else ()
        rows = {name: self._once(("row", name, n, level), partial(self._rival_row, name, n, level)) for name in names}
        return {"data": self._floors(n, level), **rows}

    def rival_samples(self, n: int, level: Level = CLEAN, baselines: bool = True) -> dict[str, Tensor]:
        """n items (n, ...) of fresh data, and of each baseline, fitted to the training data."""
        sets = {name: self._rival(name, n, level)["set"] for name in (RIVALS if baselines else ())}
        return {
            name: x.unflatten(1, self.data.shape) for name, x in {"data": self.fresh(n, 1000, level), **sets}.items()
        }

    def legend(self) -> str:
        return (
            f"distances of n samples to {FRESH} fresh data draws of n points; their ratio to the noise floor, the mean "
            f"distance of {FLOOR_PAIRS} pairs of data draws ({FLOOR_PAIRS // 3} for energy and mmd)"
        )

    def fresh(self, n: int, seed: int, level: Level = CLEAN) -> Tensor:
        """n data points (n, d): fresh draws where the data have a law, else training points drawn with replacement."""
        data = self.data
        if hasattr(data, "draw"):
            return self._noised(data.draw(n, fold_seed(seed, "fresh", n)), level, seed).flatten(1)
        whole = data.training_reference(self._size())
        # Without replacement two draws of the whole set would be equal, with distance 0.
        chosen = torch.randint(len(whole), (n,), generator=torch.Generator().manual_seed(fold_seed(seed, "fresh", n)))
        return self._noised(whole[chosen], level, seed).flatten(1)

    def _noised(self, x: Tensor, level: Level, seed: int) -> Tensor:
        if level.is_clean:
            return x
        x_0, noise = self.codec.encode(x), seeded_noise(fold_seed(seed, "blur", len(x)))
        return self.codec.decode(diffuse(x_0, noise(x_0), level))

    def _distance(self, name: str) -> StagedDistance:
        dims = math.prod(self.data.shape)
        if name == "wasserstein":
            return distance_for(dims)
        if name == "energy":
            return PairDistance(energy_distance) if dims == 1 else energy_kernel()
        reference = self.data.training_reference(PAIRWISE_POINTS).double().flatten(1)
        return gaussian_kernels(reference.std(dim=0, correction=0).mean().item() or 1.0)

    def _fresh_draws(self, n: int, level: Level) -> list[Tensor]:
        """The data (`FRESH` sets of n points) with which all samples are compared."""
        return self._once(("fresh", n, level), lambda: [self.fresh(n, 1000 + k, level) for k in range(FRESH)])

    def _against_data(self, name: str, sets: Sequence[Tensor], level: Level) -> Tensor:
        """The distances (len(sets), FRESH) of sets of samples from the fresh draws."""
        distance, n = self._distance(name), _affordable(name, len(sets[0]))
        draws, alone = self._fresh_draws(n, level), None
        if name != "wasserstein":  # whose sorted projections would take 128 MB for n = 10 000
            alone = self._once(("alone", name, n, level), lambda: [distance.alone(y.double()) for y in draws])
        return distance.table([x[:n] for x in sets], draws, alone)

    def _estimates(self, tables: Mapping[str, Tensor], n: int, level: Level) -> dict[str, Estimate]:
        """The distances of sets of samples and their ratios to the floor, from the tables of `_against_data`."""
        values: dict[str, Estimate] = {}
        for name in self.distances:
            table, floor = tables[name], self._floor(name, n, level)
            independent = table.mean(1) if len(table) > 1 else table[0]
            estimate = Estimate(table.mean().item(), independent.std().item(), _affordable(name, n))
            values |= {name: estimate, f"{name}_over_floor": estimate.over(floor.value)}
        return values

    def _rival_row(self, name: str, n: int, level: Level) -> Measured:
        rival = self._rival(name, n, level)
        return self._estimates(rival, n, level) | self._further(rival["set"], level)

    def _rival(self, name: str, n: int, level: Level) -> dict[str, Tensor]:
        """A baseline's ``set`` of n points (n, d), and its table of each distance."""

        def computed() -> dict[str, Tensor]:
            train = self._noised(self.data.training_reference(self._size()), level, -1).flatten(1)
            drawn = RIVALS[name](train, n, 0)
            return {"set": drawn} | {key: self._against_data(key, [drawn], level) for key in self.distances}

        what = f"{name}, {', '.join(self.distances)}"
        return self._once(("rival", name, n, level), lambda: self._stored(what, computed, n, level))

    def _floors(self, n: int, level: Level) -> Measured:
        floors = {name: self._floor(name, n, level) for name in self.distances}
        ratios = {f"{name}_over_floor": floor.over(floor.value) for name, floor in floors.items()}
        return floors | ratios | self._further(self.fresh(n, 1000, level), level)

    def _further(self, samples: Tensor, level: Level) -> dict[str, Estimate]:
        """The weights of modes, or the error of the spectrum, of samples (n, d)."""
        if len(self.data.shape) == 1:
            return mode_estimates(samples, self.data)
        train = self._noised(self.data.training_reference(self._size()), level, -1)
        return spectrum_estimates(samples.unflatten(1, self.data.shape), train)

    def _floor(self, name: str, n: int, level: Level) -> Estimate:
        distance, n = self._distance(name), _affordable(name, n)
        pairs = FLOOR_PAIRS if name == "wasserstein" else FLOOR_PAIRS // 3

        def computed() -> dict[str, Tensor]:
            draws = [(self.fresh(n, 2 * i, level), self.fresh(n, 2 * i + 1, level)) for i in range(pairs)]
            return {"pairs": torch.tensor([distance(x, y) for x, y in draws], dtype=torch.float64)}

        def measured() -> Estimate:
            values = self._stored(f"floor of {name}, {pairs} pairs", computed, n, level)["pairs"]
            return Estimate(values.mean().item(), values.std().item(), n)

        return self._once(("floor", name, n, level), measured)

    def _stored(self, what: str, make: Callable[[], dict[str, Tensor]], n: int, level: Level) -> dict[str, Tensor]:
        """The tensors of ``make``, or those that `cache` holds for the same data, n, level and ``what``."""
        if self.cache is None:
            return make()
        key = self._key(what, n, level)
        path, about = self.cache / f"vectors-{key}.safetensors", {"data": self.data.name, "n": n, "content": what}
        try:
            return cached(path, key, lambda: Cached(make(), about)).tensors
        except UserError as error:
            # A run does not end because of a file that it can do without.
            warnings.warn(f"floors and baselines are not kept: {error}", stacklevel=2)
            self.cache = None
            return make()

    def _key(self, what: str, n: int, level: Level) -> str:
        """16 hex digits; the fresh draws stand for the data's law and the codec, of which no digest is known."""
        train = self._once(("train",), lambda: tensor_digest({"": self.data.training_reference(self._size())}))
        draws = tensor_digest({str(k): draw for k, draw in enumerate(self._fresh_draws(n, level))})
        libraries = [version(name) for name in ("torch", "scikit-learn", "scipy", "numpy")]
        facts = {"n": n, "level": [float(level.alpha), float(level.sigma)], "libraries": libraries}
        return key_of(what=what, train=train, draws=draws, version=_VERSION, **facts)

    def _size(self) -> int:
        return len(self.data.train.data)

    def _once(self, key: tuple, make: Callable[[], T]) -> T:
        """The result of ``make``, computed once per key while the data stay the same."""
        key = tuple(float(part.sigma) if isinstance(part, Level) else part for part in key)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def _affordable(name: str, n: int) -> int:
    """n, or its limit for distances of O(n²) cost."""
    return n if name == "wasserstein" else min(n, PAIRWISE_POINTS)
