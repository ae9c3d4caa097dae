"""A finished model: load it, sample, inpaint, export."""

from litdiffusion.pretrained.model import Pretrained

__all__ = ["Pretrained"]
