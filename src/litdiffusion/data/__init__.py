"""Data sets as Lightning data modules: toy densities, small image sets, folders of pictures."""

from litdiffusion.data.augment import Augment
from litdiffusion.data.base import DataModule, as_batch, bytes_to_floats
from litdiffusion.data.facts import Facts, LoaderFacts, facts_of
from litdiffusion.data.image_folder import ImageFolder
from litdiffusion.data.images import Digits, TorchvisionImages
from litdiffusion.data.loaders import EpochLoader, loader
from litdiffusion.data.order import EpochSampler, InOrderSampler, StripeSampler
from litdiffusion.data.torchvision_sets import TorchvisionSet
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
from litdiffusion.diffusion.likelihood.bits import BYTES

__all__ = [
    "BYTES",
    "Augment",
    "Checkerboard",
    "DataModule",
    "Digits",
    "EpochLoader",
    "EpochSampler",
    "Facts",
    "GaussianMixture",
    "ImageFolder",
    "InOrderSampler",
    "LoaderFacts",
    "Mixture",
    "Moons",
    "Ramp",
    "Spiral",
    "StripeSampler",
    "SwissRoll",
    "TorchvisionImages",
    "TorchvisionSet",
    "ToyData",
    "TwoGaussians",
    "as_batch",
    "bytes_to_floats",
    "facts_of",
    "loader",
]
