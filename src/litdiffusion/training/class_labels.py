"""Class labels of a batch: checked, dropped for classifier-free guidance, and chosen for samples."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from litdiffusion.errors import UserError, listed, nearest
from litdiffusion.training.late import LateChecks, is_read_at_once

GOLDEN = (5**0.5 - 1) / 2


def checked_class_labels(class_label: Tensor | None, num_classes: int, late: LateChecks) -> Tensor:
    """The class labels (B,) of a batch as whole numbers from 0 to ``num_classes - 1``.

    Their range is checked by ``late``. Until then labels on a GPU are limited to it, because a larger one would break
    off the program without a message.

    Raises:
        UserError: class labels that are missing, that are not one whole number for each item, or that are too large.
    """
    if not isinstance(class_label, Tensor) or class_label.ndim != 1 or class_label.is_floating_point():
        kind = tuple(class_label.shape) if isinstance(class_label, Tensor) else type(class_label).__name__
        raise UserError(
            f"a model of {num_classes} classes needs batches (items, class labels) with one whole number (B,) for each "
            f"item, but this loader returns class labels {kind}; return whole numbers, or train with conditional=false "
            f"(num_classes=0)"
        )
    outside = (class_label < 0) | (class_label >= num_classes)  # K itself means "no class"
    late.check(outside.any(), partial(_refuse, class_label, num_classes))
    class_label = class_label.long()
    return class_label if is_read_at_once(class_label.device) else class_label.clamp(0, num_classes - 1)


def _refuse(class_label: Tensor, num_classes: int) -> None:
    raise UserError(
        f"class labels must be from 0 to {num_classes - 1}, but a batch has {class_label.min()} to "
        f"{class_label.max()}; declare num_classes in the data module (num_classes= of DiffusionModule)"
    )


def checked_class_names(class_names: Sequence[str], num_classes: int) -> list[str]:
    """The names of the classes of a conditional model, one for each; empty for a model without classes.

    Raises:
        UserError: another number of names than classes.
    """
    if class_names and num_classes and len(class_names) != num_classes:
        raise UserError(f"class_names has {len(class_names)} names for {num_classes} classes; give one for each class")
    return list(class_names) if num_classes else []


def class_called(name: int | str, class_names: Sequence[str], num_classes: int) -> int:
    """The class label of a name or a number, as ``class_label=cat`` or ``class_label=3`` gives it.

    Raises:
        UserError: an unknown name, a number out of range, or a number that is also the name of another class.
    """
    names = list(class_names)
    if isinstance(name, str):
        if name in names:
            return names.index(name)
        folded = [known.casefold() for known in names]
        if folded.count(name.casefold()) == 1:
            return folded.index(name.casefold())
    is_number = type(name) is int and 0 <= name < num_classes
    named = names.index(str(name)) if type(name) is int and str(name) in names else None
    if is_number and named not in (None, name):
        raise UserError(
            f"class_label={name} is the number of class {names[name]} and the name of class number {named}; give the "
            f"name as a text: class_label=\"'{names[name]}'\" or class_label=\"'{name}'\""
        )
    if named is not None:
        return named
    if is_number:
        return name
    allowed = f"whole numbers from 0 to {num_classes - 1}"
    if names:
        allowed += f" or names of classes ({listed(names)})"
    raise UserError(f"class_label must be {allowed}, got {name}{nearest(str(name), names)}")


def classes_of_model(
    class_label: Tensor, names_of_data: Sequence[str], class_names: Sequence[str], num_classes: int
) -> Tensor:
    """The model's class labels (n,) for those of data, whose classes may be fewer or in another order.

    A class is the one of the same name; where data or model have no names, the one of the same number.

    Raises:
        UserError: the model does not have such a class, or several of its classes have that name.
    """
    names, found = list(class_names), class_label.unique().tolist()
    if names == list(names_of_data) or not names or not names_of_data:
        known = {k: k for k in range(num_classes)}
        called = {k: k for k in found}
    else:
        known = {name: k for k, name in enumerate(names) if names.count(name) == 1}
        called = {k: names_of_data[k] if 0 <= k < len(names_of_data) else k for k in found}
    for name in called.values():
        if name not in known:
            what = "several classes of the model are called" if name in names else "the model does not know"
            own = listed(names) if names else f"numbers 0 to {num_classes - 1}"
            raise UserError(
                f"the data have the class {name}, which {what} (its classes: {own}); name it as the model does, or "
                f"leave its items out"
            )
    numbers = torch.tensor([known[called[k]] for k in found], dtype=torch.long)
    return numbers[torch.searchsorted(torch.tensor(found), class_label)]


def class_captions(class_label: Tensor | None, class_names: Sequence[str]) -> list[str]:
    """The name of each item's class, its number if the classes have no names; empty without classes."""
    if class_label is None:
        return []
    return [class_names[k] if class_names else str(k) for k in class_label.tolist()]


def with_class_dropout(
    class_label: Tensor, num_classes: int, share: float, uniform: Callable[..., Tensor] = torch.rand
) -> Tensor:
    """``class_label`` (B,), each replaced with probability ``share`` by ``num_classes``, which means "no class".

    A net trained on these class labels learns p(x | class) and p(x). The random numbers come from ``uniform``; share =
    0 draws none.

    Source: Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598, algorithm 1.
    """
    if share == 0:
        return class_label
    return class_label.masked_fill(uniform(*class_label.shape, device=class_label.device) < share, num_classes)


def classes_in_turn(count: int, num_classes: int, start: int = 0) -> Tensor | None:
    """Class labels (count,) ``i % num_classes`` of samples i = start, start + 1, ...; None if ``num_classes`` is 0."""
    return torch.arange(start, start + count) % num_classes if num_classes else None


def classes_in_proportion(class_label: Tensor, count: int) -> Tensor:
    """``count`` class labels with the frequencies of ``class_label`` (N,), about so in every part of the sequence.

    Sample i gets the sorted class label at the relative position ``i * golden ratio mod 1``. Such positions fill the
    unit interval more evenly than random ones.
    """
    positions = torch.arange(count, dtype=torch.float64) * GOLDEN % 1
    return class_label.sort().values[(positions * len(class_label)).long()]


def grid_columns(count: int, num_classes: int) -> int:
    """Number of columns for a grid of ``count`` pictures: about square, and one class to a column if the classes fit.

    The pictures have their classes in turn, see `classes_in_turn`; ``num_classes=0``: no classes.
    """
    side = max(1, round(count**0.5))
    if not 0 < num_classes <= 2 * side:
        return side
    return num_classes * max(1, round(side / num_classes))
