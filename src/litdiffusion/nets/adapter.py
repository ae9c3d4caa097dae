"""Adapters for nets with another interface."""

import torch
from torch import Tensor, nn

from litdiffusion.nets.classes import as_classes
from litdiffusion.parts.described import Described


class Adapter(Described, nn.Module):
    """Calls ``net(x, noise_label)``, or ``net(x, noise_label, class_label)`` with classes, and unpacks the output.

    Args:
        net: any module; a net that takes ``(x, noise_label, class_label)`` and returns a tensor needs no adapter.
        output: the attribute that holds the tensor, for nets that return an object.
        num_classes: K, for a net that requires a class label: None is then passed as K (see `nets.classes`).
        always_class: pass a class label also without classes, to a net that requires it: 0, which is K.
    """

    def __init__(self, net: nn.Module, output: str | None = None, num_classes: int = 0, always_class: bool = False):
        super().__init__()
        self.net = net
        self.output = output
        self.num_classes, self.asks = num_classes, always_class or num_classes > 0

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        class_label = as_classes(class_label, noise_label, self.num_classes) if self.asks else class_label
        out = self.net(x, noise_label) if class_label is None else self.net(x, noise_label, class_label)
        return getattr(out, self.output) if self.output else out


class AutoencoderAdapter(Described, nn.Module):
    """An autoencoder of diffusers (``AutoencoderKL``) with the interface of `Autoencoder`.

    Args:
        net: a module whose ``encode(x).latent_dist`` has ``mean`` and ``logvar``, and with ``decode(z).sample``.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def encode(self, x: Tensor) -> Tensor:
        """Mean and log-variance, one after the other in dimension 1, of the latents of images x."""
        latent = self.net.encode(x).latent_dist
        return torch.cat([latent.mean, latent.logvar], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """The images of latents z."""
        return self.net.decode(z).sample

    def forward(self, x: Tensor) -> Tensor:
        """The images of the latents' means."""
        return self.decode(self.encode(x).chunk(2, dim=1)[0])
