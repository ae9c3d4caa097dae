"""Pictures of diffusion: trajectories from noise to data, the forward process, samples beside data.

Every function takes tensors in model space and returns an RGB ``PIL.Image`` (`trajectory_gif` writes a
file); the same input gives the same bytes. Nothing is drawn through global state, and matplotlib and PIL are
imported on first use.
"""

from litdiffusion.plots.animation import trajectory_gif
from litdiffusion.plots.images import image_grid, trajectory_sheet
from litdiffusion.plots.overviews import comparison_picture, forward_picture, trajectory_picture
from litdiffusion.plots.vectors import density_panels, histogram_panels, vector_panels

__all__ = [
    "comparison_picture",
    "density_panels",
    "forward_picture",
    "histogram_panels",
    "image_grid",
    "trajectory_gif",
    "trajectory_picture",
    "trajectory_sheet",
    "vector_panels",
]
