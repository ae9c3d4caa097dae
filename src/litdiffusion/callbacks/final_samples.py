"""The result of a run as one picture: samples beside the data."""

from pathlib import Path

import lightning as L
from torch import Tensor

from litdiffusion.callbacks.drawing import at_most, display_range, save_picture, states_of
from litdiffusion.loggers import log_metrics
from litdiffusion.metrics import distance_for, kernel_density_samples, noise_floor
from litdiffusion.modules import DiffusionModule
from litdiffusion.plots import comparison_picture, image_grid


class FinalSamples(L.Callback):
    """Draws samples at the end of a run: a grid of images, or for vectors data, samples and a kernel density estimate.

    Vectors are also measured: their Wasserstein distance to fresh data (exact W1 in one dimension, sliced W2 in more),
    beside that of two independent data draws of the same size (the noise floor) and of the density estimate.

    Args:
        run_dir: folder of the run.
        images: how many images.
        points: how many vectors.
        steps: network calls per sample, at most; None: the sampler's own number.
        weights: "ema" or "raw".
        seed: of the noise.
    """

    def __init__(
        self,
        run_dir: Path,
        images: int = 64,
        points: int = 10_000,
        steps: int | None = None,
        weights: str = "ema",
        seed: int = 0,
    ):
        self.run_dir = run_dir
        self.images, self.points = images, points
        self.steps, self.weights, self.seed = steps, weights, seed
        self._numbers = ""

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if not trainer.is_global_zero:
            return
        images = len(trainer.datamodule.shape) == 3
        samples = self._draw(pl_module, self.images if images else self.points)
        picture = self._grid(trainer, samples) if images else self._compare(trainer, samples)
        save_picture(trainer, self.run_dir, "samples", picture, "samples.png")

    def summary(self) -> str:
        """One line for the end of a run: the measured distances of vector data, or nothing."""
        return self._numbers

    def _draw(self, module: DiffusionModule, count: int) -> Tensor:
        return states_of(module, at_most(module, self.steps), count, self.weights, self.seed + 1, keep_every=10**9)[
            -1
        ].x

    def _grid(self, trainer: L.Trainer, samples: Tensor):
        columns = max(1, round(len(samples) ** 0.5))
        return image_grid(samples, columns, display_range(trainer))

    def _compare(self, trainer: L.Trainer, samples: Tensor):
        data = trainer.datamodule
        if not hasattr(data, "draw") or not samples.isfinite().all():
            self._numbers = (
                f"samples: {int(samples.isfinite().all(1).sum())} of {len(samples)} are finite, not measured"
            )
            return comparison_picture({"data": data.reference(len(samples)), "samples": samples})
        fresh = data.draw(len(samples), seed=self.seed + 10_000)
        estimate = kernel_density_samples(data.train.data, len(samples), seed=0)
        distance = distance_for(samples.shape[1])
        floor = noise_floor(data.draw, len(samples), distance=distance).mean
        ratios = {name: distance(x, fresh) / floor for name, x in (("samples", samples), ("density", estimate))}
        values = {"samples/wasserstein": ratios["samples"] * floor, "samples/wasserstein_over_floor": ratios["samples"]}
        log_metrics(trainer, values)
        self._numbers = (
            f"samples: Wasserstein distance to data {ratios['samples'] * floor:.4f} = {ratios['samples']:.2f} x floor, "
            f"kernel density estimate {ratios['density']:.2f} x floor (n = {len(samples)})"
        )
        return comparison_picture(
            {
                "data": fresh,
                f"samples: {ratios['samples']:.2f} × floor": samples,
                f"kernel density: {ratios['density']:.2f} × floor": estimate,
            },
            "Wasserstein distance to fresh data, in units of the distance of two data draws",
        )
