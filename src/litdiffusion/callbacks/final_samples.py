"""The result of a run as one picture: samples beside the data."""

from pathlib import Path

import lightning as L
from PIL.Image import Image
from torch import Tensor

from litdiffusion.callbacks.drawing import at_most, display_range, noised_like, save_picture, states_of, target_name
from litdiffusion.data.toys import Mixture
from litdiffusion.loggers import log_metrics
from litdiffusion.metrics import distance_for, kernel_density_samples, mode_shares, noise_floor, share_within
from litdiffusion.modules import DiffusionModule
from litdiffusion.plots import comparison_picture, image_grid
from litdiffusion.samplers import State
from litdiffusion.seeding import fold_seed


class FinalSamples(L.Callback):
    """Draws samples at the end of a run: a grid of images, or for vectors data, samples and a kernel density estimate.

    Vectors are also measured: their Wasserstein distance to fresh data (exact W1 in one dimension, sliced W2 in more),
    beside that of two independent data draws of the same size (the noise floor) and of the density estimate. A walk
    that ends at a noise level (Langevin) is compared with data noised to that level.

    Args:
        run_dir: folder of the run.
        images: how many images.
        points: how many vectors.
        steps: network calls per sample, at most, but for Langevin dynamics; None: the sampler's own number.
        origin_radius: also says what share of samples and of data lies within this distance of the origin, in units of
            the data as the model sees them; None: does not.
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
        origin_radius: float | None = None,
    ):
        self.run_dir = run_dir
        self.images, self.points = images, points
        self.steps, self.weights, self.seed = steps, weights, seed
        self.origin_radius = origin_radius
        self._numbers = ""

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if not trainer.is_global_zero:
            return
        images = len(trainer.datamodule.shape) == 3
        end = self._draw(pl_module, self.images if images else self.points)
        picture = self._grid(trainer, end.x) if images else self._compare(trainer, end)
        save_picture(trainer, self.run_dir, "samples", picture, "samples.png")

    def summary(self) -> str:
        """One line for the end of a run: the measured distances of vector data, or nothing."""
        return self._numbers

    def _draw(self, module: DiffusionModule, count: int) -> State:
        return states_of(module, at_most(module, self.steps), count, self.weights, self.seed + 1, shown=1)[-1]

    def _grid(self, trainer: L.Trainer, samples: Tensor) -> Image:
        columns = max(1, round(len(samples) ** 0.5))
        return image_grid(samples, columns, display_range(trainer))

    def _compare(self, trainer: L.Trainer, end: State) -> Image:
        data, samples = trainer.datamodule, end.x
        if not hasattr(data, "draw") or not samples.isfinite().all():
            self._numbers = (
                f"samples: {int(samples.isfinite().all(1).sum())} of {len(samples)} are finite, not measured"
            )
            return comparison_picture({"data": data.reference(len(samples)), "samples": samples})

        def draw(n: int, seed: int) -> Tensor:
            return noised_like(end, data.draw(n, seed), fold_seed(seed, n))

        fresh = draw(len(samples), self.seed + 10_000)
        name, train = target_name(end), data.train.data
        estimate = kernel_density_samples(noised_like(end, train, fold_seed(-1, len(train))), len(samples), seed=0)
        distance = distance_for(samples.shape[1])
        floor = noise_floor(draw, len(samples), distance=distance).mean
        found, classical = (distance(x, fresh) / floor for x in (samples, estimate))
        self._numbers = (
            f"samples: Wasserstein distance to {name} {found * floor:.4f} = {found:.2f} x floor, "
            f"kernel density estimate {classical:.2f} x floor (n = {len(samples)})"
        )
        values = {"samples/wasserstein": found * floor, "samples/wasserstein_over_floor": found}
        log_metrics(
            trainer,
            values | self._modes(samples, fresh, data.mixture) | self._near_origin(samples, fresh, name),
        )
        return comparison_picture(
            {
                name: fresh,
                f"samples: {found:.2f} × floor": samples,
                f"kernel density: {classical:.2f} × floor": estimate,
            },
            f"Wasserstein distance to fresh {name}, in units of the distance of two data draws",
        )

    def _modes(self, samples: Tensor, data: Tensor, mixture: Mixture | None) -> dict[str, float]:
        """The weights of the modes, where the data are a mixture."""
        if mixture is None:
            return {}
        shares = [mode_shares(x, mixture.means) for x in (samples, data)]
        found, true = (" ".join(f"{share:.3f}" for share in row) for row in shares)
        self._numbers += f"; weights of the modes: {found}, of the data {true}"
        return {f"samples/mode_{k}": share for k, share in enumerate(shares[0])}

    def _near_origin(self, samples: Tensor, data: Tensor, name: str) -> dict[str, float]:
        if self.origin_radius is None:
            return {}
        shares = [share_within(x, self.origin_radius) for x in (samples, data)]
        self._numbers += (
            f"; within {self.origin_radius:g} of the origin: {100 * shares[0]:.2f} % of samples, "
            f"{100 * shares[1]:.2f} % of {name}"
        )
        return {"samples/share_near_origin": shares[0], "samples/data_share_near_origin": shares[1]}
