"""Data sets as Lightning data modules: toy densities, small image sets, folders of pictures, tables of vectors."""

from litdiffusion.data.arrays import bytes_to_floats
from litdiffusion.data.augment import Augment
from litdiffusion.data.base import DataModule, as_batch
from litdiffusion.data.facts import Facts, LoaderFacts, facts_of
from litdiffusion.data.huggingface import HuggingFaceSet
from litdiffusion.data.image_folder import ImageFolder
from litdiffusion.data.images import Digits, TorchvisionImages
from litdiffusion.data.loaders import EpochLoader, loader
from litdiffusion.data.order import EpochSampler, InOrderSampler, StripeSampler
from litdiffusion.data.profiles import Profiles
from litdiffusion.data.scale import Scale, items_for_scale, scale_of, warn_of_scale
from litdiffusion.data.table import TableData
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
    "HuggingFaceSet",
    "ImageFolder",
    "InOrderSampler",
    "LoaderFacts",
    "Mixture",
    "Moons",
    "Profiles",
    "Ramp",
    "Scale",
    "Spiral",
    "StripeSampler",
    "SwissRoll",
    "TableData",
    "TorchvisionImages",
    "TorchvisionSet",
    "ToyData",
    "TwoGaussians",
    "as_batch",
    "bytes_to_floats",
    "facts_of",
    "items_for_scale",
    "loader",
    "scale_of",
    "warn_of_scale",
]
