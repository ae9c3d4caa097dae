"""Pictures of diffusion: trajectories from noise to data, the forward process, samples beside data, fields.

Every function takes tensors in data space and returns an RGB ``PIL.Image`` (`trajectory_gif`: the bytes of a
file). The same input gives the same bytes. No function uses global matplotlib state. matplotlib and PIL are imported on
first use.
"""

from litdiffusion.plots.animation import trajectory_gif
from litdiffusion.plots.curves import Curve, quality_picture
from litdiffusion.plots.field import FieldPanel, field_picture
from litdiffusion.plots.grids import field_grid, field_grids
from litdiffusion.plots.images import image_grid, pairs_picture, trajectory_sheet
from litdiffusion.plots.overviews import comparison_picture, forward_picture, sweep_picture, trajectory_picture
from litdiffusion.plots.path import path_picture

__all__ = [
    "Curve",
    "FieldPanel",
    "comparison_picture",
    "field_grid",
    "field_grids",
    "field_picture",
    "forward_picture",
    "image_grid",
    "pairs_picture",
    "path_picture",
    "quality_picture",
    "sweep_picture",
    "trajectory_gif",
    "trajectory_picture",
    "trajectory_sheet",
]
