"""Samples at the end of training beside the data, and their distances from the data."""

from pathlib import Path
from typing import Any

import lightning as L
from PIL.Image import Image
from torch import Tensor

from litdiffusion.callbacks.conditions import told_as_in_data
from litdiffusion.callbacks.pictures import (
    display_range,
    facts_for,
    limited_sampler,
    save_picture,
    states_of,
    target_name,
)
from litdiffusion.diffusion.samplers import State
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import share_within
from litdiffusion.measure.quality import Measured, Quality, logged
from litdiffusion.plots import comparison_picture, image_grid
from litdiffusion.plots.images import to_pixels
from litdiffusion.runs.dashboards import log_metrics, log_samples
from litdiffusion.training import DiffusionModule
from litdiffusion.training.class_labels import class_captions, classes_in_turn, grid_columns
from litdiffusion.training.evaluation import check_weights

POINTS, FEW_POINTS = 10_000, 2_000
"""Default numbers of vectors in a set: after a run, and after one of fewer than `SHORT` steps, or of sequences."""
SHORT = 100
"""Number of steps below which a net has learned too little for its samples to be judged."""


class FinalSamples(L.Callback):
    """Draws samples when training ends: a grid of images, or vectors or sequences beside data and density estimates.

    A grid of as many held-out images is saved as ``data.png``. Vectors and sequences are also measured, as
    ``samples/<name>`` in the log and in the run's summary (see `Quality`), with ``samples/<headline>_spread``.
    Samples that end at a noise level (Langevin) are compared with data noised to that level. A conditional model draws
    images of all classes in turn, and vectors with the class frequencies of the training items; continuous conditions
    are those of random training items.

    Args:
        run_dir: the run's folder.
        quality: the metrics of vectors and sequences; None: no metrics.
        images: number of images, or of sequences without metrics.
        points: number of vectors or sequences in a set. None: 10 000 vectors, 2000 sequences. If the run has fewer than
            100 steps, 2000 and no classical density estimates, which the line in the terminal says.
        sets: number of independent sets of vectors or sequences to draw and measure; they give the spread.
        steps: largest number of network calls per sample; None: the sampler's own number.
        weights: "ema" or "raw".
        seed: seed of the noise.
        origin_radius: also log the share of vectors within this distance of the origin; None: do not.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(
        self,
        run_dir: Path,
        quality: Quality | None = None,
        images: int = 64,
        points: int | None = None,
        sets: int = 1,
        steps: int | None = None,
        weights: str = "ema",
        seed: int = 0,
        origin_radius: float | None = None,
        facts: Any = None,
    ):
        for name, value in (("images", images), ("points", points), ("sets", sets)):
            if value is not None and value < 1:
                raise UserError(f"callbacks.final_samples.{name} must be at least 1, got {value}")
        check_weights(weights, "callbacks.final_samples.weights")
        self.run_dir, self.quality, self.facts = run_dir, quality, facts
        self.images, self.points, self.sets = images, points, sets
        self.steps, self.weights, self.seed = steps, weights, seed
        self.origin_radius = origin_radius
        self._summary = ""

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if not trainer.is_global_zero:
            return
        with pl_module.clock("samples"):
            draw = self._image_grid if len(pl_module.shape) == 3 else self._comparison
            picture = draw(trainer, pl_module)
            save_picture(trainer, self.run_dir, "samples", picture, "samples.png")

    def summary(self) -> str:
        """One line for the end of a run: the measured distances; empty for images."""
        return self._summary

    def _image_grid(self, trainer: L.Trainer, module: DiffusionModule) -> Image:
        facts = facts_for(self, trainer)
        samples = self._final_state(module, self.images, None, facts).x
        captions = class_captions(classes_in_turn(len(samples), module.num_classes), module.class_names)
        limits, columns = display_range(facts), grid_columns(len(samples), module.num_classes)
        self._save_data(trainer, facts.reference(len(samples)), columns, limits)
        log_samples(trainer, to_pixels(samples, limits), captions)
        return image_grid(samples, columns, limits, captions)

    def _save_data(self, trainer: L.Trainer, data: Tensor, columns: int, limits: tuple[float, float]) -> None:
        """Saves held-out images as a grid like that of the samples, to be looked at beside it."""
        save_picture(trainer, self.run_dir, "data", image_grid(data, columns, limits), "data.png")

    def _default_points(self, module: DiffusionModule, short: bool) -> int:
        if len(module.shape) == 1:
            return FEW_POINTS if short else POINTS
        return FEW_POINTS if self.quality is not None else self.images

    def _comparison(self, trainer: L.Trainer, module: DiffusionModule) -> Image:
        short = self.points is None and trainer.global_step < SHORT
        facts, points = facts_for(self, trainer), self.points or self._default_points(module, short)
        class_label = told_as_in_data(module, facts, points * self.sets, self.seed)
        end = self._final_state(module, points * self.sets, class_label, facts)
        first = end.x[:points]
        name, quality = target_name(end), self.quality
        finite = end.x.isfinite().flatten(1).all(1)
        if quality is None or not finite.all():
            self._summary = "" if finite.all() else f"samples: {finite.sum()} of {len(finite)} are finite, not measured"
            return comparison_picture({"data": facts.reference(points), "samples": first})
        measured = quality.measure(end.x, points, end.level)
        rivals = quality.rivals(points, end.level, baselines=not short)
        sets = quality.rival_samples(points, end.level, baselines=not short)
        near = self._near_origin(first, sets["data"])
        few = f" and no density estimates after fewer than {SHORT} steps" if short else ""
        self._summary = self._distances_line(measured, rivals, name, few) + self._near_origin_line(near, name)
        values = logged("samples", measured, quality.headline) | near
        log_metrics(trainer, values)
        trainer.callback_metrics.update(values)  # because one of them may be a sweep's metric
        ratios = {key: row[quality.headline].value for key, row in rivals.items()}
        rival_panels = {f"{key}: {ratios[key]:.2f} × floor": sets[key] for key in sets if key != "data"}
        return comparison_picture(
            {name: sets["data"], f"samples: {measured[quality.headline].value:.2f} × floor": first, **rival_panels},
            f"{quality.title} to fresh {name}, in units of the distance of two data draws",
        )

    def _final_state(self, module: DiffusionModule, count: int, class_label: Tensor | None, facts: Any) -> State:
        seed = fold_seed(self.seed, "final_samples")
        sampler = limited_sampler(module, self.steps)
        return states_of(module, sampler, count, self.weights, seed, 1, class_label, facts)[-1]

    def _distances_line(self, measured: Measured, rivals: dict[str, Measured], name: str, few: str) -> str:
        ratio = measured[self.quality.headline]
        distance = measured.get(self.quality.headline.removesuffix("_over_floor"), ratio)
        others = "".join(
            f", {key} {row[self.quality.headline].value:.2f} x" for key, row in rivals.items() if key != "data"
        )
        line = (
            f"samples: {self.quality.title} to {name} {distance.value:.4f} = {ratio.value:.2f} ± {ratio.spread:.2f} x "
            f"floor{others} (n = {distance.n}{few}, sets: {self.sets})"
        )
        found, true = (_mode_weights(row) for row in (measured, rivals.get("data", {})))
        return f"{line}; weights of the modes: {found}, of the data {true}" if found else line

    def _near_origin(self, samples: Tensor, data: Tensor) -> dict[str, float]:
        """Shares of samples and of data within ``origin_radius`` of the origin; empty without a radius."""
        if self.origin_radius is None:
            return {}
        names = ("samples/share_near_origin", "samples/data_share_near_origin")
        return {
            name: share_within(x.flatten(1), self.origin_radius) for name, x in zip(names, (samples, data), strict=True)
        }

    def _near_origin_line(self, near: dict[str, float], name: str) -> str:
        if not near:
            return ""
        found, true = (f"{100 * share:.2f} %" for share in near.values())
        return f"; within {self.origin_radius:g} of the origin: {found} of samples, {true} of {name}"


def _mode_weights(measured: Measured) -> str:
    """The measured weights of the data's modes; empty for data without modes."""
    return " ".join(f"{value.value:.3f}" for key, value in measured.items() if key.removeprefix("mode_").isdigit())
