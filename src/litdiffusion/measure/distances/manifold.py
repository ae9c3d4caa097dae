"""Fidelity and diversity apart, by balls around points: precision and recall, density and coverage.

The ball of a point reaches to its k-th nearest neighbour in its own set. Features (n, d) and (m, d) on one device;
distances in float64, in blocks of bounded memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.measure.distances.estimate import Estimate, mean_estimate
from litdiffusion.measure.distances.pairs import centred_pair, distance_blocks


class PrecisionRecall(NamedTuple):
    """The shares of samples that look real, and of real points that the samples reach."""

    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    """How densely real points surround the samples, and the share of real points with a sample in their ball."""

    density: Estimate
    coverage: Estimate


def precision_recall(samples: Tensor, real: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of samples (n, d) against real data (m, d), both in [0, 1].

    Precision: the share of samples inside any ball of a real point. Recall: the share of real points inside any
    ball of a sample. A sampler of the data's law has the same value for both, but less than 1 and less in more
    dimensions (0.57 for 10 000 normal points in 64): compare with a second sample of data, at equal n and m. One
    that repeats a few good items has precision 1 and recall near 0; stray samples with large balls raise recall.
    The spreads are standard errors of the two means, precision over samples and recall over real points, at given
    balls. Source: Improved Precision and Recall Metric for Assessing Generative Models, Kynkäänniemi, Karras,
    Laine, Lehtinen, Aila 2019, arXiv 1904.06991. Raises ValueError unless k < n, m.
    """
    samples, real = centred_pair(samples, real)
    sample_radii, real_radii = neighbour_radii(samples, k), neighbour_radii(real, k)
    precise, recalled = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, distances in distance_blocks(samples, real):
        precise.append((distances <= real_radii).any(dim=1))
        recalled = recalled | (distances <= sample_radii[rows, None]).any(dim=0)
    return PrecisionRecall(mean_estimate(torch.cat(precise)), mean_estimate(recalled))


def density_coverage(samples: Tensor, real: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage of samples (n, d) against real data (m, d).

    Density: the mean over samples of the number of real balls around it, over k; it may exceed 1. Coverage: the
    share of real points whose ball holds a sample, in [0, 1]. For a sampler of the data's law the expectations
    are 1 and, for n = m large, about ``1 - 2^-k``. Only real balls count, so that stray samples help neither. The
    spreads are standard errors of the two means, density over samples and coverage over real points, at given
    balls. Source: Reliable Fidelity and Diversity Metrics for Generative Models, Naeem, Oh, Uh, Choi, Yoo 2020,
    arXiv 2002.09797. Raises ValueError unless k < m.
    """
    samples, real = centred_pair(samples, real)
    radii = neighbour_radii(real, k)
    counts, covered = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for _, distances in distance_blocks(samples, real):
        inside = distances <= radii
        counts.append(inside.sum(dim=1))
        covered = covered | inside.any(dim=0)
    return DensityCoverage(mean_estimate(torch.cat(counts).double() / k), mean_estimate(covered))


def neighbour_radii(x: Tensor, k: int) -> Tensor:
    """The distance (n,) of each point (n, d) to its k-th nearest neighbour, itself left out; 1 <= k < n."""
    if not 1 <= k < len(x):
        raise ValueError(f"k must be from 1 to {len(x) - 1} for {len(x)} points, got {k}")
    nearest = [distances.topk(k + 1, dim=1, largest=False).values for _, distances in distance_blocks(x, x)]
    return torch.cat(nearest)[:, -1]
