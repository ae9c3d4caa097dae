"""Networks ``net(x, noise_label, class_label) -> tensor shaped like x``, which know nothing of diffusion."""

from litdiffusion.nets.adapter import Adapter, AutoencoderAdapter
from litdiffusion.nets.autoencoder import Autoencoder
from litdiffusion.nets.dit import DiT
from litdiffusion.nets.mlp import MLP
from litdiffusion.nets.residual_mlp import ResidualMLP
from litdiffusion.nets.source_unet import SourceUNet
from litdiffusion.nets.unet import UNet
from litdiffusion.nets.unet1d import UNet1d

__all__ = [
    "MLP",
    "Adapter",
    "Autoencoder",
    "AutoencoderAdapter",
    "DiT",
    "ResidualMLP",
    "SourceUNet",
    "UNet",
    "UNet1d",
]
