"""Regular grids of points at which a field is shown."""

import torch
from torch import Tensor

from litdiffusion.plots.density import Window, common_window, relative_extent


def field_grid(points: Tensor, per_axis: int) -> Tensor:
    """A regular grid (per_axis^d, d), d = 1 or 2, that fills the window of points (n, d), in float64."""
    return _cell_centres(common_window([], points), per_axis)


def field_grids(samples: list[Tensor], per_axis: int) -> list[Tensor]:
    """A `field_grid` for each sample (n, d), the cleanest sample first.

    All samples up to twice as wide as the first share one window; wider samples have their own.
    """
    own = common_window([], samples[0])
    near = [relative_extent(sample, own) <= 2 for sample in samples]
    common = common_window([sample for sample, fits in zip(samples, near, strict=True) if fits], samples[0])
    windows = [common if fits else common_window([], sample) for sample, fits in zip(samples, near, strict=True)]
    return [_cell_centres(window, per_axis) for window in windows]


def window_of(points: Tensor) -> Window:
    """The window that a `field_grid` (m, d) fills: half a cell beyond its outermost points."""
    low, high = points.amin(dim=0), points.amax(dim=0)
    per_axis = round(len(points) ** (1 / points.shape[1]))
    return Window((low + high) / 2, (high - low) / 2 * per_axis / max(per_axis - 1, 1))


def _cell_centres(window: Window, per_axis: int) -> Tensor:
    """The centres (per_axis^d, d) of ``per_axis`` equal cells along every axis of the window."""
    steps = (torch.arange(per_axis, dtype=torch.float64) + 0.5) / per_axis * 2 - 1
    axes = [centre + half * steps for centre, half in zip(*window, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))
