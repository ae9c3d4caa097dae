"""Arrays behind the pictures of vectors: common windows, histograms, smoothed 2-D densities."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

UNEQUAL = 4
"""Axes have one scale unless the data are this many times as wide along one axis as along another."""


class Window(NamedTuple):
    """The region that a panel shows: ``centre`` (d,) and half-widths ``half`` (d,), in units of the data."""

    centre: Tensor
    half: Tensor

    @property
    def equal(self) -> bool:
        """Whether all axes have one scale."""
        return bool((self.half == self.half[0]).all())

    def widened(self, factor: int) -> "Window":
        """The window with the same centre, ``factor`` times as wide."""
        return self._replace(half=self.half * factor)

    def limits(self, axis: int = 0) -> tuple[float, float]:
        """The lower and the upper limit of one coordinate."""
        return float(self.centre[axis] - self.half[axis]), float(self.centre[axis] + self.half[axis])

    def edges(self, bins: int) -> Tensor:
        """The edges (bins + 1,) of equal bins of the first coordinate."""
        return torch.linspace(*self.limits(), bins + 1, dtype=torch.float64)


def finite(points: Tensor) -> Tensor:
    """The points (n, d) without those that have a non-finite coordinate, as float64 on the CPU."""
    points = points.detach().cpu().double()
    return points[points.isfinite().all(dim=1)]


def extent(points: Tensor, centre: Tensor) -> Tensor:
    """Half-widths (d,) about ``centre`` that contain 99.8 % of the points (n, d) along each axis; 0 without points."""
    distance = (finite(points) - centre).abs()
    if not len(distance):
        return torch.zeros_like(centre)
    rank = min(len(distance) - 1, math.ceil(0.998 * len(distance)))
    return distance.sort(dim=0).values[rank]


def relative_extent(points: Tensor, window: Window) -> float:
    """How far the points (n, d) reach from the window's centre, in units of its half-widths; 0 without points."""
    return float((extent(points, window.centre) / window.half).max())


def common_window(states: list[Tensor], reference: Tensor) -> Window:
    """One window for all panels, with a margin around the reference (m, d) and the states (n, d).

    It contains all states if they are at most 4 times as wide as the reference. If any state is wider (noise of
    variance-exploding processes, diverged samples), it contains only the states up to 1.5 times as wide; the panels of
    the others are widened, see `widening`. The axes have one scale, unless the reference is more than `UNEQUAL` times
    as wide along one axis as along another: then each has its own.
    """
    reference = finite(reference)
    if not len(reference):
        raise ValueError("the reference must have at least one finite point, which sets the scale of the picture")
    centre = (reference.amin(dim=0) + reference.amax(dim=0)) / 2
    own = Window(centre, _half_widths(extent(reference, centre)))
    widths = [relative_extent(state, own) for state in states]
    bound = 4 if max(widths, default=1) <= 4 else 1.5
    return Window(centre, 1.06 * own.half * max([1.0, *(width for width in widths if width <= bound)]))


def _half_widths(extent: Tensor) -> Tensor:
    """The half-widths (d,) of a window around points of this extent; one number unless they are `UNEQUAL`."""
    widest = extent.max()
    wide = torch.where(extent > 0, extent, widest if widest > 0 else 1.0)
    return wide if widest > UNEQUAL * wide.min() else wide.max().expand_as(wide)


def widening(points: Tensor, window: Window) -> int:
    """Factor by which this state's panel is wider than the common window: 1, or a power of two."""
    width = relative_extent(points, window)
    return 1 if width <= 1 else 2 ** math.ceil(math.log2(width))


def histogram(values: Tensor, window: Window, bins: int) -> Tensor:
    """The density (bins,) of the first coordinate of (n, d) in equal bins of the window: ``counts / (n · bin width)``.

    Its integral is the share of the points that lie in the window.
    """
    counts = torch.histc(finite(values)[:, 0], bins, *window.limits())
    return counts * bins / (max(len(values), 1) * 2 * window.half[0])


def density_image(points: Tensor, window: Window, bins: int = 80) -> Tensor:
    """The density (bins, bins) of the first two coordinates of (n, d); row 0 is the top of the picture.

    A 2-D histogram smoothed by a Gaussian of 0.7 to 2 bins, wider for fewer points. Its sum is the share of the points
    that lie in the window.
    """
    from scipy.ndimage import gaussian_filter

    plane = finite(points)[:, :2]
    counts = torch.histogramdd(plane, [bins, bins], range=[*window.limits(0), *window.limits(1)]).hist
    width = min(2.0, max(0.7, 1.1 * (4000 / max(len(plane), 1)) ** (1 / 6)))
    return torch.from_numpy(gaussian_filter(counts.T.flip(0).numpy(), width)) / max(len(points), 1)
