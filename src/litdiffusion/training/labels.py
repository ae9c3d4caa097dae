"""The classes of a batch: hidden from the net now and then, and chosen for samples."""

import torch
from torch import Tensor

from litdiffusion.errors import UserError

GOLDEN = (5**0.5 - 1) / 2


def class_labels(label: Tensor | None, classes: int) -> Tensor:
    """The labels (B,) of a batch as the whole numbers from 0 to ``classes - 1`` that a net of classes is told.

    Raises:
        UserError: a batch without labels, with others than one whole number for each item, or with a larger one.
    """
    if not isinstance(label, Tensor) or label.ndim != 1 or label.is_floating_point():
        kind = tuple(label.shape) if isinstance(label, Tensor) else type(label).__name__
        raise UserError(
            f"a model of {classes} classes needs batches (items, labels) with one whole number (B,) for each item, "
            f"this loader gives labels {kind}; give it these, or train with conditional=false (classes=0)"
        )
    if label.min() < 0 or label.max() >= classes:  # a label of K would say "no class"
        raise UserError(
            f"labels must be from 0 to {classes - 1}, a batch has {label.min()} to {label.max()}; declare num_classes "
            f"in the data module (classes= of DiffusionModule)"
        )
    return label.long()


def hidden(label: Tensor, classes: int, share: float) -> Tensor:
    """``label`` (B,), each with probability ``share`` replaced by ``classes``, which says "no class".

    A net trained on it knows both p(x | class) and p(x). Draws from the default generator of the device; nothing at
    share = 0.

    Source: Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598, algorithm 1.
    """
    if share == 0:
        return label
    return label.masked_fill(torch.rand(label.shape, device=label.device) < share, classes)


def in_turn(count: int, classes: int, start: int = 0) -> Tensor | None:
    """Classes ``i % classes`` of the samples i = start, start + 1, ..., (count,); None for a model without classes."""
    return torch.arange(start, start + count) % classes if classes else None


def in_proportion(label: Tensor, count: int) -> Tensor:
    """``count`` labels, each about as often as among ``label`` (N,), in every run of them and not only in all.

    The sorted labels read at the places ``i * golden ratio mod 1``, which fill [0, 1) more evenly than random ones.
    """
    places = torch.arange(count, dtype=torch.float64) * GOLDEN % 1
    return label.sort().values[(places * len(label)).long()]


def columns(count: int, classes: int) -> int:
    """Of a grid of ``count`` pictures drawn in turn: about square, and one class to a column where they fit in."""
    side = max(1, round(count**0.5))
    if not 0 < classes <= 2 * side:
        return side
    return classes * max(1, round(side / classes))
