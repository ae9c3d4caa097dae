"""What a model with continuous conditions is told of a batch: one tensor (B, C), see `litdiffusion.nets.conditions`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.training.class_labels import checked_class_labels
from litdiffusion.training.late import LateChecks


def condition_of(batch: Batch, num_classes: int, names: Sequence[str], late: LateChecks) -> Tensor:
    """The classes (if ``num_classes`` is not 0) and the conditions ``names`` of a batch as columns (B, C), float32.

    float32 holds the number of a class exactly, up to 2^24 classes. ``late`` as in `checked_class_labels`.

    Raises:
        UserError: conditions that are missing or of another number, or class labels as in `checked_class_labels`.
    """
    values = batch.conditions
    if not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] != len(names):
        kind = tuple(values.shape) if isinstance(values, Tensor) else "none"
        raise UserError(
            f"a model of the conditions {', '.join(names)} needs batches (items, class labels or None, conditions) "
            f"with conditions (B, {len(names)}), but this loader returns {kind}; return them, or call "
            f"choose_conditions([{','.join(names)}]) of a data module of litdiffusion"
        )
    return joined(checked_class_labels(batch.class_label, num_classes, late) if num_classes else None, values)


def joined(class_label: Tensor | None, values: Tensor) -> Tensor:
    """Class labels (B,), or None, and values (B, D) as columns (B, C) of float32."""
    columns = [] if class_label is None else [class_label[:, None].float()]
    return torch.cat([*columns, values.float()], dim=1)


def with_dropout(condition: Tensor, share: float, uniform: Callable[..., Tensor] = torch.rand) -> Tensor:
    """``condition`` (B, C) with some values replaced by NaN, which means "not told".

    With probability ``share`` an item loses all of its values together: so the net learns p(x), which guidance needs.
    If there are several (C > 1), each value of the other items is also lost alone with that probability, so that the
    net learns p(x | some of them). A value is lost with probability share for C = 1, else ``1 - (1 - share)²``. The
    random numbers come from ``uniform``; share = 0 draws none.

    Source: Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598, algorithm 1 (all together).
    """
    if share == 0:
        return condition
    count, columns = condition.shape
    lost = uniform(count, 1, device=condition.device) < share
    if columns > 1:
        lost = lost | (uniform(count, columns, device=condition.device) < share)
    return condition.masked_fill(lost, torch.nan)


def rows_drawn(rows: Tensor, count: int, seed: int, num_classes: int = 0) -> Tensor:
    """``count`` rows of ``rows`` (N, C), drawn with replacement: the joint distribution of the data's conditions.

    With ``num_classes`` row i is one of those with the class ``i % num_classes`` (the first column), if there are any.
    """
    generator = torch.Generator().manual_seed(fold_seed(seed, "conditions"))
    index = torch.randint(len(rows), (count,), generator=generator)
    for k in range(num_classes):
        of_class = (rows[:, 0] == k).nonzero().flatten().cpu()
        if len(of_class):
            index[k::num_classes] = of_class[index[k::num_classes] % len(of_class)]
    return rows[index.to(rows.device)]


def class_column(condition: Tensor | None, num_classes: int) -> Tensor | None:
    """The class labels (B,) in ``condition``: (B,) itself, or the first of its columns (B, C); None without classes."""
    if condition is None or not num_classes or condition.ndim == 1:
        return condition if num_classes else None
    return condition[:, 0].long()
