"""Adapters for nets with another interface."""

import torch
from torch import Tensor, nn

from litdiffusion.errors import UserError
from litdiffusion.nets.classes import as_classes
from litdiffusion.nets.conditions import ConditionEmbedding, Conditions, as_columns
from litdiffusion.parts.described import Described


class Adapter(Described, nn.Module):
    """Calls ``net(x, noise_label)``, or ``net(x, noise_label, class_label)`` with classes, and unpacks the output.

    Args:
        net: any module; a net that takes ``(x, noise_label, class_label)`` and returns a tensor needs no adapter.
        output: the attribute that holds the tensor, for nets that return an object.
        num_classes: K, for a net that requires a class label: None is then passed as K (see `nets.classes`).
        always_class: pass a class label also without classes, to a net that requires it: 0, which is K.
        conditions: continuous conditions, see `nets.conditions`. A `ConditionEmbedding` then takes the place of the
            net's ``class_embedding``, whose vector it adds to its ``time_embedding``, as the U-Nets of diffusers do.

    Raises:
        UserError: conditions for a net without these two parts.
    """

    def __init__(
        self,
        net: nn.Module,
        output: str | None = None,
        num_classes: int = 0,
        always_class: bool = False,
        conditions: Conditions = (),
    ):
        super().__init__()
        self.net = net
        self.output = output
        self.num_classes, self.asks = num_classes, always_class or num_classes > 0
        self.columns = len(conditions) + (num_classes > 0) if conditions else 0
        if conditions:
            net.class_embedding = ConditionEmbedding(num_classes, _time_dim(net), conditions)

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        if self.columns:
            class_label = as_columns(class_label, noise_label, self.columns)
        elif self.asks:
            class_label = as_classes(class_label, noise_label, self.num_classes)
        out = self.net(x, noise_label) if class_label is None else self.net(x, noise_label, class_label)
        return getattr(out, self.output) if self.output else out


def _time_dim(net: nn.Module) -> int:
    """Size of the vector of a diffusers net's time embedding."""
    last = getattr(getattr(net, "time_embedding", None), "linear_2", None)
    if not (isinstance(last, nn.Linear) and hasattr(net, "class_embedding")):
        raise UserError(
            f"model.net={type(net).__name__} cannot be told conditions: it adds no class_embedding to a "
            f"time_embedding, as diffusers.UNet2DModel does; take conditional=true for classes alone, or model=unet"
        )
    return last.out_features


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
