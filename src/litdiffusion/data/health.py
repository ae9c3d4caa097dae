"""Warnings of data that are suspiciously constant, and the lines that say what was read."""

import sys
import warnings
from collections.abc import Sequence

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

LOOKED_AT, NUMBERS = 2_000, 2**22
"""Largest number of items, and of numbers in them, that are looked at."""
ALMOST = 0.99
"""Share of equal values from which data count as nearly constant."""
NARROW = 2 / 16
"""Width of the values of images, of the 2 from -1 to 1, up to which they are hardly visible."""
NAMES_SHOWN = 20
"""How many class names a line lists."""


def constant_problem(data: Tensor) -> str | None:
    """What is constant in items (N, C, ...) in data space, in a few words; None if they vary.

    In this order: one value is all of the numbers or at least 99 % of them; images hardly vary; a coordinate of vectors
    or a channel of images has one value only.
    """
    if not data.numel():
        return None
    x = data[: max(2, NUMBERS // data[0].numel())].float()
    values = x.flatten().median()  # a value of more than half of the numbers is their median
    share = (x == values).float().mean().item()
    if share == 1:
        return f"every value is {values:.4g}"
    if share >= ALMOST:
        return f"{100 * share:.2f} % of the values are {values:.4g}"
    low, high = x.min().item(), x.max().item()
    if x.ndim == 4 and high - low <= NARROW:
        return f"all values lie from {low:.4g} to {high:.4g}"
    if x.ndim < 2:
        return None
    parts = x.transpose(0, 1).flatten(1)
    constant = (parts.amin(1) == parts.amax(1)).nonzero().flatten().tolist() if len(x) > 1 else []
    if not constant:
        return None
    kind = "coordinate" if x.ndim == 2 else "channel"
    more = f" and {len(constant) - 1} more" if len(constant) > 1 else ""
    return f"{kind} {constant[0]}{more} of {len(parts)} has the one value {parts[constant[0], 0]:.4g}"


def warn_of_constant(name: str, data: Tensor) -> None:
    """Warns of training items in which `constant_problem` finds something."""
    if problem := constant_problem(data):
        warnings.warn(
            f"{name}: {problem} in the first {len(data)} training items; if that is not meant, look at the files and "
            f"at how their values are scaled",
            stacklevel=3,
        )


def class_line(count: int, noun: str, class_names: Sequence[str]) -> str:
    """The line "18 images in 3 classes: 0 = bird, 1 = cat, 2 = dog"; of many classes the first and the last ones."""
    pairs = [f"{k} = {name}" for k, name in enumerate(class_names)]
    if len(pairs) > NAMES_SHOWN:
        pairs = [*pairs[: NAMES_SHOWN - 1], "...", pairs[-1]]
    plural = "" if len(class_names) == 1 else "es"
    return f"{count} {noun} in {len(class_names)} class{plural}: {', '.join(pairs)}"


@rank_zero_only
def say(lines: Sequence[str]) -> None:
    """Prints lines in the first process only."""
    for line in lines:
        print(line, file=sys.stdout, flush=True)
