"""Distances of generated samples from data, as functions of tensors.

Of vectors: `wasserstein_1d`, `sliced_wasserstein`, `energy_distance` and `kernel_mmd`, with their noise floor and
classical baselines. Of image features: Fréchet and kernel distance, precision and recall, density and coverage, class
balance. Of both: the copying check. A number with its uncertainty is an `Estimate`.
"""

from litdiffusion.measure.distances.baselines import gaussian_mixture_samples, kernel_density_samples
from litdiffusion.measure.distances.classes import (
    ClassBalance,
    class_balance,
    class_shares,
    share_error,
    total_variation,
)
from litdiffusion.measure.distances.copying import Copying, Nearest, copying_check, nearest
from litdiffusion.measure.distances.distances import (
    Distance,
    SlicedWasserstein,
    distance_for,
    mode_shares,
    noise_floor,
    share_within,
    sliced_wasserstein,
    wasserstein_1d,
)
from litdiffusion.measure.distances.estimate import Estimate, mean_estimate
from litdiffusion.measure.distances.frechet import Moments, frechet_between, frechet_distance, frechet_estimate, moments
from litdiffusion.measure.distances.kernels import (
    data_scale,
    energy_distance,
    energy_kernel,
    gaussian_kernels,
    kernel_mmd,
)
from litdiffusion.measure.distances.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from litdiffusion.measure.distances.polynomial import kernel_distance, polynomial_mmd2
from litdiffusion.measure.distances.staged import PairDistance, StagedDistance

__all__ = [
    "ClassBalance",
    "Copying",
    "DensityCoverage",
    "Distance",
    "Estimate",
    "Moments",
    "Nearest",
    "PairDistance",
    "PrecisionRecall",
    "SlicedWasserstein",
    "StagedDistance",
    "class_balance",
    "class_shares",
    "copying_check",
    "data_scale",
    "density_coverage",
    "distance_for",
    "energy_distance",
    "energy_kernel",
    "frechet_between",
    "frechet_distance",
    "frechet_estimate",
    "gaussian_kernels",
    "gaussian_mixture_samples",
    "kernel_density_samples",
    "kernel_distance",
    "kernel_mmd",
    "mean_estimate",
    "mode_shares",
    "moments",
    "nearest",
    "noise_floor",
    "polynomial_mmd2",
    "precision_recall",
    "share_error",
    "share_within",
    "sliced_wasserstein",
    "total_variation",
    "wasserstein_1d",
]
