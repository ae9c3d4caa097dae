"""The quality of image samples: distances from real images in the features of a net that suits the data."""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.data import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import (
    Copying,
    Estimate,
    Moments,
    class_balance,
    class_shares,
    copying_check,
    density_coverage,
    frechet_estimate,
    kernel_distance,
    mean_estimate,
    moments,
    precision_recall,
)
from litdiffusion.measure.features import Extractor, FeatureMaps, Features, reference_features
from litdiffusion.measure.quality.base import Measured, Quality

HELD_OUT = 1000
"""Held-out real images that calibrate the copying check."""
FEWEST = 20
"""The least number of samples and of held-out images: the kernel distance takes ten subsets of at least two."""
FLOOR_DRAWS = 5
"""The number of random subsets of the held-out images whose mean Fréchet distance is the floor."""

WHO = {"train": "training images", "full": "training and validation images"}
"""The real images of each part."""


class Real(NamedTuple):
    """The extractor, its maps of reference images and of held-out images, and the moments of the reference features."""

    extractor: Extractor
    train: FeatureMaps
    test: FeatureMaps
    moments: Moments


class ImageQuality(Quality):
    """Fréchet and kernel distance, precision and recall, density and coverage of samples against training images.

    The features come from a net that suits the data (`features`), so the Fréchet distance is not the FID, except for
    Inception's features, all training images and 50 000 samples (conf/metrics/fid.yaml). Compare it at equal extractor,
    n and reference only. ``frechet_over_floor`` is its ratio to the distance of n held-out images: 1 for a perfect
    sampler.

    A classifier as the net adds ``confidence``, its mean confidence, and ``class_error``, the total variation between
    the classes of samples and of data. Conditional samples add ``class_accuracy``, the share of samples whose class the
    classifier recognises.

    Spreads are over subsets (kernel), else standard errors; `frechet_estimate`, `precision_recall` and the other
    functions say by which factor each is off. They leave out the bias of the Fréchet distance at finite n, which its
    floor has too. The floor is a mean over `FLOOR_DRAWS` random subsets; its spread is that of one.

    Args:
        features: a kind of features of images, trained or loaded at the first measurement.
        reference: number of real images for comparison, the first of ``part``; None: all.
        cache: folder for the features of real images.
        part: "train", or "full": also the images that are held out for validation, as in published FIDs.

    Raises:
        UserError: for fewer than 100 real images, another part, or ``part="full"`` for data without a test split.
    """

    headline = "frechet_over_floor"
    title = "Fréchet distance"
    names = ("frechet", "frechet_over_floor", "kernel", "precision", "recall", "density", "coverage")
    rising = frozenset({"precision", "recall", "density", "coverage", "confidence", "class_accuracy"})
    live = 256

    def __init__(self, features: Features, cache: str | Path, reference: int | None = 10_000, part: str = "train"):
        super().__init__()
        if reference is not None and reference < 100:
            raise UserError(f"metrics.reference must be at least 100 real images, got {reference}; 10000 is usual")
        if part not in WHO:
            raise UserError(f"metrics.part={part}: must be train, or full (with the images held out for validation)")
        self.features, self.reference, self.cache, self.part = features, reference, cache, part
        self._floors: dict[int, Measured] = {}

    def attach(self, data: DataModule) -> "ImageQuality":
        if len(data.shape) != 3:
            raise UserError(f"metrics of images do not fit items of shape {tuple(data.shape)}; set metrics=vectors")
        self._floors.clear()
        self.__dict__.pop("real", None)
        super().attach(data)
        return self

    @cached_property
    def real(self) -> Real:
        """Computed at the first measurement, so a run without measurements has no cost."""
        extractor = self.features.prepare(self.data)
        if self.part == "full" and self.data.test() is self.data.val:
            raise UserError(
                f"metrics.part=full counts the validation images among the real ones, but {self.data.name} has no test "
                f"split and needs them for the floor; set metrics.part=train"
            )
        facts = {"n": self.reference, "cache": self.cache}
        train, test = (reference_features(extractor, self.data, part, **facts) for part in (self.part, "test"))
        return Real(extractor, train, test, moments(train.features))

    def prepare(self) -> None:
        _ = self.real

    def measure(
        self, samples: Tensor, n: int | None = None, level: Level = CLEAN, class_labels: Tensor | None = None
    ) -> Measured:
        maps = self.real.extractor(samples[:n])
        measured = self._distances(maps)
        floor = self.rivals(len(maps.features))["data"]["frechet"]
        ratio = measured["frechet"].over(floor.value)
        return measured | {"frechet_over_floor": ratio} | self._classes(maps, class_labels)

    def rivals(self, n: int, level: Level = CLEAN, baselines: bool = True) -> dict[str, Measured]:
        n = min(n, len(self.real.test.features))
        if n not in self._floors:
            draws = self._held_out(n)
            measured = self._distances(draws[0])
            distances = [frechet_estimate(part.features, self.real.moments).value for part in draws]
            measured["frechet"] = floor = measured["frechet"]._replace(value=sum(distances) / len(distances))
            self._floors[n] = measured | {"frechet_over_floor": floor.over(floor.value)} | self._classes(draws[0], None)
        return {"data": self._floors[n]}

    def _held_out(self, n: int) -> list[FeatureMaps]:
        """`FLOOR_DRAWS` random subsets of n held-out images, or all images once.

        Random, because a test split may be stored in an order: the first half of MNIST's is from other writers.
        """
        test = self.real.test
        order = torch.randperm(len(test.features), generator=torch.Generator().manual_seed(fold_seed(0, "floor")))
        rows = [order.roll(-k * n)[:n] for k in range(FLOOR_DRAWS if n < len(order) else 1)]
        return [FeatureMaps(*(None if x is None else x[index] for x in test)) for index in rows]

    def legend(self) -> str:
        real = self.real
        return (
            f"features of {real.extractor.name}, {len(real.train.features)} {WHO[self.part]} as reference; the floor "
            f"is the distance of n random held-out images, at most {len(real.test.features)}; spreads are for these "
            f"real images: those of recall and coverage are 0.5 to 1 times the true ones, that of frechet up to 1.5 "
            f"times for perfect samples"
        )

    def copying(self, samples: Tensor) -> Copying:
        """The `copying_check` of samples, in pixels, against all training images."""
        train, held_out = self.data.training_reference(len(self.data.train.data)), self.data.reference(HELD_OUT)
        return copying_check(samples, train, held_out, quantile=max(0.01, 1 / len(held_out)))

    def _distances(self, maps: FeatureMaps) -> dict[str, Estimate]:
        samples, real = maps.features, self.real.train.features
        if len(samples) < FEWEST:
            raise UserError(
                f"metrics of images need at least {FEWEST} samples and {FEWEST} held-out images, got {len(samples)}; "
                f"raise their number (data.val_size), or set metrics=none"
            )
        manifold = [precision_recall(samples, real), density_coverage(samples, real)]
        return {
            "frechet": frechet_estimate(samples, self.real.moments),
            "kernel": kernel_distance(samples, real),
            **{name: value for pair in manifold for name, value in pair._asdict().items()},
        }

    def _classes(self, maps: FeatureMaps, class_labels: Tensor | None) -> dict[str, Estimate]:
        if maps.logits is None:
            return {}
        train: Batch = self.data.train
        balance = class_balance(maps.logits, class_shares(train.class_label, self.data.num_classes))
        found = {"class_error": balance.total_variation, "confidence": balance.confidence}
        if class_labels is not None:
            found["class_accuracy"] = mean_estimate((maps.logits.argmax(1) == class_labels).double())
        return found
