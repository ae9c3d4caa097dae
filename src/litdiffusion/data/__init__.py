"""Data sets as Lightning data modules: toy densities, small image sets, folders of pictures."""

from litdiffusion.data.base import DataModule, to_model_space
from litdiffusion.data.image_folder import ImageFolder
from litdiffusion.data.images import Digits, TorchvisionImages
from litdiffusion.data.loaders import TensorLoader, WorkerLoader
from litdiffusion.data.order import BatchOrder, GroupedOrder, SequentialOrder
from litdiffusion.data.toy_module import (
    Checkerboard,
    GaussianMixture,
    Moons,
    Ramp,
    Spiral,
    SwissRoll,
    ToyData,
    TwoGaussians,
)
from litdiffusion.data.toys import Mixture

__all__ = [
    "BatchOrder",
    "Checkerboard",
    "DataModule",
    "Digits",
    "GaussianMixture",
    "GroupedOrder",
    "ImageFolder",
    "Mixture",
    "Moons",
    "Ramp",
    "SequentialOrder",
    "Spiral",
    "SwissRoll",
    "TensorLoader",
    "TorchvisionImages",
    "ToyData",
    "TwoGaussians",
    "WorkerLoader",
    "to_model_space",
]
