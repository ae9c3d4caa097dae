"""Mean and deviation of data, measured once: schedules follow them, or a warning says that they do not."""

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.codecs.standardise import HIGH, LOW

FEWEST_ITEMS, NUMBERS = 2000, 1_500_000
"""Items that are measured: so many, or more while they are smaller than so many numbers together."""


class Scale(NamedTuple):
    """The ``mean`` and the ``std`` of data, (C,) in float64: per coordinate of vectors, per channel of images."""

    mean: Tensor
    std: Tensor

    @property
    def sigma_data(self) -> float:
        """One deviation for all coordinates, ``sqrt(mean of std²)``, to four digits against rounding errors.

        Each coordinate is measured about its own mean. If no coordinate varies it is 1.
        """
        return float(f"{self.std.square().mean().sqrt().item():.4g}") or 1.0

    def pooled(self) -> "Scale":
        """One mean and one deviation (1,) over all coordinates together."""
        mean = self.mean.mean(dim=0, keepdim=True)
        return Scale(mean, (self.std.square() + (self.mean - mean).square()).mean(dim=0, keepdim=True).sqrt())

    def rounded(self) -> "Scale":
        """Constants of equal data that are equal on every machine: deviations to five digits, means to 1e-5 of them."""
        std = torch.tensor([float(f"{value:.5g}") for value in self.std.tolist()], dtype=torch.float64)
        unit = torch.where(std > 0, 10.0 ** (std.clamp(min=1e-300).log10().floor() - 5), 1.0)
        tidy = [float(f"{value:.15g}") for value in ((self.mean / unit).round() * unit).tolist()]
        return Scale(torch.where(std > 0, torch.tensor(tidy, dtype=torch.float64), self.mean), std)


def scale_of(x: Tensor) -> Scale:
    """The `Scale` of data (N, C, ...): over the items and, for images, over the pixels of a channel."""
    rows = x.detach().double().transpose(0, 1).flatten(1)
    return Scale(rows.mean(dim=1), rows.std(dim=1, correction=0))


def items_for_scale(shape: tuple[int, ...]) -> int:
    """The number of items of this shape that are measured."""
    return max(FEWEST_ITEMS, NUMBERS // math.prod(shape))


def warn_of_scale(scale: Scale, made_for: float | None, has_range: bool) -> None:
    """Warns in one line of data whose scale or mean the process does not follow.

    Args:
        scale: mean and deviation of the training data in model space.
        made_for: the deviation of the data that the noise schedule is made for; None: the schedule's numbers are in the
            data's own units, which are not judged.
        has_range: whether the data declare a value range, as images do. Of such data only the deviation of all
            coordinates together is judged, since dark images and constant pixels are usual.
    """
    std, found, follows = scale.sigma_data, [], ""
    if made_for is not None and not LOW <= std / made_for <= HIGH:
        found.append(f"have the deviation {std:.3g}, and the noise schedule is made for {made_for:.3g}")
        follows = ", or take recipe=edm, ve or ncsn, which follow the deviation"
    elif not has_range and (line := _uneven(scale.std, made_for or std)):
        found.append(line)
    far = (scale.mean.abs() - scale.std).argmax()
    mean, own = scale.mean[far].item(), scale.std[far].item()
    if not has_range and abs(mean) > own and torch.any(scale.std > 0):
        found.append(f"have a coordinate with the mean {mean:.3g} and the deviation {own:.3g}, and samples start at 0")
    if found:
        warnings.warn(
            f"the training data {', and '.join(found)}, so samples may miss scale or mean; standardise the data "
            f"(codec=auto or standardise){follows}",
            stacklevel=2,
        )


def _uneven(std: Tensor, made_for: float) -> str:
    """What to say of a coordinate whose deviation is far from ``made_for``; empty if there is none."""
    varying = std[std > 0] / made_for
    if not len(varying) or LOW <= varying.min() <= varying.max() <= HIGH:
        return ""
    worst = varying[varying.log().abs().argmax()].item() * made_for
    return f"have a coordinate with the deviation {worst:.3g}, and the noise schedule is made for {made_for:.3g}"
