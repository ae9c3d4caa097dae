"""Toy densities as data sets of standardised points. A new toy is one class of three lines."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Generator, Tensor

from litdiffusion.data import toys
from litdiffusion.data.base import DataModule, check_at_least
from litdiffusion.data.batch import Batch
from litdiffusion.data.identity import Identity
from litdiffusion.data.toys import Mixture
from litdiffusion.diffusion.seeding import fold_seed


class ToyData(DataModule):
    """``size`` training and ``val_size`` independent validation points of a density, standardised, without classes.

    Each coordinate is ``(x - mean) / std`` with the training sample's ``mean`` and ``std`` (d,). Both are kept, so that
    pictures can use the density's own units (`in_data_units`). With ``standardise=False`` they are 0 and 1.

    Raises:
        UserError: for sizes below their minimum.
    """

    density: ClassVar[Callable[..., Tensor]]
    """Function (n, generator) -> points (n, d) in the density's own units, e.g. one of `litdiffusion.data.toys`."""
    mixture_in_data_units: ClassVar[Mixture | None] = None
    """The density in closed form, in its own units; None unless it is a mixture of Gaussians."""
    shape = (2,)
    mean: Tensor
    std: Tensor

    def __init__(
        self, *, size: int = 10_000, batch_size: int, val_size: int, seed: int, standardise: bool = True
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        check_at_least("size", size, 2)
        self.size, self.standardise = size, standardise

    def points(self, n: int, generator: Generator) -> Tensor:
        """n points (n, d) in the density's own units."""
        return type(self).density(n, generator)

    def read(self) -> tuple[Batch, Batch]:
        """Training and validation points from separate random streams; sets `mean` and `std` of the training points."""
        raw = self._points_of_seed(self.size, fold_seed(self.seed, "train"))
        # float64, because a float32 mean of 10 000 points far from 0 is off by more than 1e-5.
        self.mean, self.std = raw.double().mean(0).float(), raw.double().std(0, correction=0).float()
        if not self.standardise:
            self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        return Batch(self._standardise(raw)), Batch(
            self._standardise(self._points_of_seed(self.val_size, fold_seed(self.seed, "val")))
        )

    def identity(self) -> Identity:
        """Counts, settings, and moments to three digits, because the last digits differ between machines."""
        self.load()
        x = self.train.data.double()
        moments = [self.mean.double(), self.std.double(), x.abs().mean(0), (x**3).mean(0)]
        rounded = [[round(value, 3) + 0.0 for value in moment.tolist()] for moment in moments]
        settings = type(self).__qualname__, self.shape, self.seed, self.standardise, rounded
        return Identity.of_rows("items", self.size, self.val_size, [repr(settings)]).without_rows()

    def draw(self, n: int, seed: int) -> Tensor:
        """n fresh standardised points (n, d), a pure function of (n, seed), independent of train and val."""
        self.load()
        return self._standardise(self._points_of_seed(n, fold_seed(seed, "draw")))

    def in_data_units(self, x: Tensor) -> Tensor:
        """Undoes the standardisation of points (n, d): ``mean + std * x``."""
        return self.mean.to(x) + self.std.to(x) * x

    @property
    def mixture(self) -> Mixture | None:
        """The density of the standardised data in closed form; None unless it is a mixture of Gaussians."""
        self.load()
        own = self.mixture_in_data_units
        return None if own is None else own.standardised(self.mean, self.std)

    def _points_of_seed(self, n: int, seed: int) -> Tensor:
        return self.points(n, torch.Generator().manual_seed(seed))

    def _standardise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class GaussianMixture(ToyData):
    """Two modes in one dimension, `toys.gaussian_mixture`."""

    density, mixture_in_data_units, shape = toys.gaussian_mixture, toys.GAUSSIAN_MIXTURE, (1,)


class TwoGaussians(ToyData):
    """Two modes too far apart for Langevin sampling to mix, `toys.two_gaussians`."""

    density, mixture_in_data_units = toys.two_gaussians, toys.TWO_GAUSSIANS


class Spiral(ToyData):
    """One and a half turns, `toys.spiral`, with the condition ``angle``, see `toys.spiral_angle`."""

    density = toys.spiral

    def computed_conditions(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        return {"angle": lambda x: toys.spiral_angle(self.in_data_units(x))}


class Moons(ToyData):
    """Two half circles, `toys.moons`."""

    density = toys.moons


class SwissRoll(ToyData):
    """A rolled plane seen from its end, `toys.swiss_roll`."""

    density = toys.swiss_roll


class Checkerboard(ToyData):
    """Alternating squares with sharp edges, `toys.checkerboard`."""

    density = toys.checkerboard


class Ramp(ToyData):
    """A falling line in each of ``dim`` independent coordinates, `toys.ramp`."""

    density = toys.ramp

    def __init__(
        self,
        *,
        dim: int = 2,
        size: int = 10_000,
        batch_size: int,
        val_size: int,
        seed: int,
        standardise: bool = True,
    ) -> None:
        super().__init__(size=size, batch_size=batch_size, val_size=val_size, seed=seed, standardise=standardise)
        check_at_least("dim", dim, 1)
        self.shape = (dim,)

    def points(self, n: int, generator: Generator) -> Tensor:
        """n points (n, dim)."""
        return toys.ramp(n, generator, *self.shape)
