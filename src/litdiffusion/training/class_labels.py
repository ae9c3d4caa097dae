"""The classes of a batch: hidden from the net now and then, and chosen for samples."""

import torch
from torch import Tensor

from litdiffusion.errors import UserError

GOLDEN = (5**0.5 - 1) / 2


def checked_class_labels(class_label: Tensor | None, num_classes: int) -> Tensor:
    """The labels (B,) of a batch as the whole numbers from 0 to ``classes - 1`` that a net of classes is told.

    Raises:
        UserError: a batch without labels, with others than one whole number for each item, or with a larger one.
    """
    if not isinstance(class_label, Tensor) or class_label.ndim != 1 or class_label.is_floating_point():
        kind = tuple(class_label.shape) if isinstance(class_label, Tensor) else type(class_label).__name__
        raise UserError(
            f"a model of {num_classes} classes needs batches (items, labels) with one whole number (B,) for each item, "
            f"this loader gives labels {kind}; give it these, or train with conditional=false (num_classes=0)"
        )
    if class_label.min() < 0 or class_label.max() >= num_classes:  # a label of K would say "no class"
        raise UserError(
            f"class labels must be from 0 to {num_classes - 1}, a batch has {class_label.min()} to "
            f"{class_label.max()}; declare num_classes in the data module (num_classes= of DiffusionModule)"
        )
    return class_label.long()


def with_class_dropout(class_label: Tensor, num_classes: int, share: float) -> Tensor:
    """``class_label`` (B,), each with probability ``share`` replaced by ``num_classes``, which says "no class".

    A net trained on it knows both p(x | class) and p(x). Draws from the default generator of the device; nothing at
    share = 0.

    Source: Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598, algorithm 1.
    """
    if share == 0:
        return class_label
    return class_label.masked_fill(torch.rand(class_label.shape, device=class_label.device) < share, num_classes)


def classes_in_turn(count: int, num_classes: int, start: int = 0) -> Tensor | None:
    """Classes ``i % classes`` of the samples i = start, start + 1, ..., (count,); None for a model without classes."""
    return torch.arange(start, start + count) % num_classes if num_classes else None


def classes_in_proportion(class_label: Tensor, count: int) -> Tensor:
    """``count`` labels, each about as often as among ``class_label`` (N,), in every run of them and not only in all.

    The sorted labels read at the places ``i * golden ratio mod 1``, which fill [0, 1) more evenly than random ones.
    """
    places = torch.arange(count, dtype=torch.float64) * GOLDEN % 1
    return class_label.sort().values[(places * len(class_label)).long()]


def grid_columns(count: int, num_classes: int) -> int:
    """Of a grid of ``count`` pictures drawn in turn: about square, and one class to a column where they fit in."""
    side = max(1, round(count**0.5))
    if not 0 < num_classes <= 2 * side:
        return side
    return num_classes * max(1, round(side / num_classes))
