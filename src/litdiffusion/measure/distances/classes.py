"""The classes of samples, by a classifier: their shares and its confidence."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.measure.distances.estimate import Estimate, mean_estimate

REPEATS = 1000
"""Number of histograms behind the spread of an error of shares."""


class ClassBalance(NamedTuple):
    """The samples' shares (K,), their total variation from the data's shares, its floor, and the mean confidence."""

    shares: Tensor
    total_variation: Estimate
    floor: float
    confidence: Estimate


def class_shares(class_labels: Tensor, num_classes: int) -> Tensor:
    """The share (K,), in float64, of each class among integer class labels (n,) in 0 .. K - 1.

    Raises:
        ValueError: for other shapes, no class labels, or class labels out of range.
    """
    if class_labels.ndim != 1 or not len(class_labels) or class_labels.min() < 0 or class_labels.max() >= num_classes:
        raise ValueError(
            f"class labels must be (n,) integers from 0 to {num_classes - 1}, n >= 1: look at the classifier's K"
        )
    return torch.bincount(class_labels, minlength=num_classes).double() / len(class_labels)


def total_variation(p: Tensor, q: Tensor) -> float:
    """``½ Σ_k |p_k - q_k|`` of two histograms (K,): 0 for equal ones, 1 for ones without a common class."""
    return float((p.double() - q.to(p.device).double()).abs().sum()) / 2


def share_error(shares: Tensor, data_shares: Tensor, n: int, seed: int = 0) -> Estimate:
    """The `total_variation` of the shares (K,) of n labels from the data's shares (K,), and its spread.

    The spread is the standard deviation over 1000 histograms of n labels drawn with these shares: labels are counted
    together, so a share that is too large makes others too small. For shares far from the data's it is right (0.96 to
    1.07 of the true one). For a perfect sampler it is at most a fifth too large, because the error cannot be negative.
    """
    drawn = np.random.default_rng(fold_seed(seed, "class_error")).multinomial(n, shares.double().tolist(), REPEATS) / n
    errors = np.abs(drawn - data_shares.double().numpy(force=True)).sum(axis=1) / 2
    return Estimate(total_variation(shares, data_shares), float(errors.std(ddof=1)), n)


def class_balance(logits: Tensor, data_shares: Tensor, seed: int = 0) -> ClassBalance:
    """The classes of n >= 2 samples, from a classifier's logits (n, K), compared with the data's shares (K,).

    Each sample counts for its most probable class. To pass probabilities p, take ``log p`` as logits. The confidence is
    the mean of the largest softmax probability. ``floor ≈ ½ Σ_k sqrt(2 p_k (1 - p_k) / (pi n))`` is the mean total
    variation of a perfect sampler; the data's shares p_k count as exact.

    The spread of the total variation is that of `share_error`, the spread of the confidence its standard error. Both
    leave out the classifier's own errors.

    Raises:
        ValueError: for other shapes, non-finite logits, or shares that are not a distribution.
    """
    if logits.ndim != 2 or len(logits) < 2 or data_shares.shape != logits.shape[1:]:
        shapes = f"{tuple(logits.shape)} and {tuple(data_shares.shape)}"
        raise ValueError(f"logits must be (n, K) with n >= 2 and shares (K,), got {shapes}")
    if (data_shares < 0).any() or abs(float(data_shares.double().sum()) - 1) > 1e-6:
        raise ValueError("the data's shares must be at least 0 and sum to 1: take them from class_shares")
    probabilities = logits.detach().double().softmax(dim=1)
    if probabilities.isnan().any():
        raise ValueError("logits hold NaN or +inf: look at the samples, or at the classifier")
    confidence, class_labels = probabilities.max(dim=1)
    shares = class_shares(class_labels, logits.shape[1])
    variation = share_error(shares, data_shares, len(class_labels), seed)
    floor = _floor(data_shares, len(class_labels))
    return ClassBalance(shares, variation, floor, mean_estimate(confidence))


def _floor(shares: Tensor, n: int) -> float:
    """The mean total variation of n draws from their own law, by normal counts and E|N(0, s²)| = s sqrt(2/pi)."""
    variance = shares.double() * (1 - shares.double()) / n
    return float((2 * variance / math.pi).sqrt().sum()) / 2
