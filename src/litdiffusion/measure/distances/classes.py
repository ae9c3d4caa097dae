"""The classes of samples, by a classifier: their shares and its confidence."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.measure.distances.estimate import Estimate, bootstrap, mean_estimate


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


def class_balance(logits: Tensor, data_shares: Tensor, repeats: int = 20, seed: int = 0) -> ClassBalance:
    """The classes of n >= 2 samples, from a classifier's logits (n, K), compared with the data's shares (K,).

    Each sample counts for its most probable class. To pass probabilities p, take ``log p`` as logits. The confidence is
    the mean of the largest softmax probability. ``floor ≈ ½ Σ_k sqrt(2 p_k (1 - p_k) / (pi n))`` is the mean total
    variation of a perfect sampler; the data's shares p_k count as exact.

    The spread of the total variation is by `bootstrap` over samples. The spread of the confidence is its standard
    error. Both leave out the classifier's own errors.

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
    num_classes = logits.shape[1]

    def distance(x: Tensor) -> float:
        return total_variation(class_shares(x, num_classes), data_shares)

    variation = bootstrap(distance, class_labels, repeats, fold_seed(seed, "class_error"))
    floor = _floor(data_shares, len(class_labels))
    return ClassBalance(class_shares(class_labels, num_classes), variation, floor, mean_estimate(confidence))


def _floor(shares: Tensor, n: int) -> float:
    """The mean total variation of n draws from their own law, by normal counts and E|N(0, s²)| = s sqrt(2/pi)."""
    variance = shares.double() * (1 - shares.double()) / n
    return float((2 * variance / math.pi).sqrt().sum()) / 2
