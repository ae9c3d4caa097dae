"""Networks ``net(x, label, class_label) -> tensor shaped like x``; none of them knows that it is used for diffusion."""

from litdiffusion.nets.adapter import Adapter
from litdiffusion.nets.mlp import MLP
from litdiffusion.nets.unet import UNet

__all__ = ["MLP", "Adapter", "UNet"]
