"""The kernel distance of two sets of image features (KID, when the features are Inception's)."""

import torch
from torch import Tensor

from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.measure.distances.estimate import Estimate, mean_estimate
from litdiffusion.measure.distances.pairs import checked_pair


def polynomial_mmd2(x: Tensor, y: Tensor) -> float:
    """The unbiased squared MMD of features (n, d) and (m, d), n, m >= 2, under ``k(x, y) = (x·y / d + 1)³``.

    ``mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean of k(x_i, y_j)``. It compares the first
    three moments. Its expectation is 0 for two samples of one law, so single values may be negative. Memory is O(n²).

    Own code: torchmetrics' poly_mmd needs n = m, and scikit-learn's polynomial_kernel takes 4 times as long.

    Raises:
        ValueError: for unequal d, non-finite values, or fewer than 2 items.
    """
    x, y = checked_pair(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"the kernel distance needs at least 2 items on both sides, got {len(x)} and {len(y)}")
    return float(_mean_within(_kernel(x, x)) + _mean_within(_kernel(y, y)) - 2 * _kernel(x, y).mean())


def kernel_distance(x: Tensor, y: Tensor, subsets: int = 10, seed: int = 0) -> Estimate:
    """The kernel distance of features (n, d) and (m, d): the mean of `polynomial_mmd2` over ``subsets``, unbiased.

    Both sides are shuffled by ``seed`` and divided into disjoint subsets of ``min(n, m) // subsets`` items: 1000 items
    for the usual n = 10 000. Disjoint subsets are independent, so the spread of their mean is their standard deviation
    over ``sqrt(subsets)``. Papers often print the deviation itself, of overlapping subsets.

    Raises:
        ValueError: for fewer than 2 subsets, or fewer than 2 items in a subset.

    Source: Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", 2018, arXiv 1801.01401.
    """
    size = min(len(x), len(y)) // max(subsets, 1)
    if subsets < 2 or size < 2:
        raise ValueError(f"{subsets} subsets of {size} items: take from 2 to {min(len(x), len(y)) // 2} subsets")
    generator = torch.Generator().manual_seed(fold_seed(seed, "subsets"))
    order_x, order_y = (torch.randperm(len(z), generator=generator).to(z.device) for z in (x, y))
    pieces = zip(order_x.split(size)[:subsets], order_y.split(size)[:subsets], strict=True)
    values = torch.tensor([polynomial_mmd2(x[i], y[j]) for i, j in pieces], dtype=torch.float64)
    return mean_estimate(values)._replace(n=subsets * size)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """``(x·y / d + 1)³`` for all pairs (n, m)."""
    return (x @ y.T / x.shape[1] + 1).pow(3)


def _mean_within(kernel: Tensor) -> Tensor:
    """The mean off the diagonal of a kernel matrix (n, n)."""
    n = len(kernel)
    return (kernel.sum() - kernel.trace()) / (n * (n - 1))
