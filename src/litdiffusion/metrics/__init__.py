"""How far generated samples are from data: distances between samples, their noise floor, a classical
baseline.
"""

from litdiffusion.metrics.baselines import kernel_density_samples
from litdiffusion.metrics.distances import (
    Distance,
    distance_for,
    mode_shares,
    noise_floor,
    share_within,
    sliced_wasserstein,
    wasserstein_1d,
)

__all__ = [
    "Distance",
    "distance_for",
    "kernel_density_samples",
    "mode_shares",
    "noise_floor",
    "share_within",
    "sliced_wasserstein",
    "wasserstein_1d",
]
