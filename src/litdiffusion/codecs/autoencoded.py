"""The codec of latent diffusion: a trained autoencoder that no longer changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litdiffusion.codecs.base import Codec, Range
from litdiffusion.errors import UserError


class Autoencoded(Codec):
    """Model space is ``(m(x) - mean) / std`` with the autoencoder's mean latent m(x); `decode` undoes it.

    The weights do not change and are not averaged; they are part of every checkpoint of the diffusion. ``mean`` and
    ``std`` of each latent channel are measured once, on training items, so that the diffusion sees unit scale.

    Args:
        model: autoencoder with ``encode`` (mean and log-variance in dimension 1) and ``decode``, see
            `litdiffusion.nets.Autoencoder`; a run makes it from ``ckpt``.
        mean, std: of each latent channel; None: measured by `measured_on`.
        value_range: range of the data, to which decoded items are limited; None: no limit.
        ckpt: checkpoint of the autoencoder's run, or folder of a published one; only its path is kept here.
        experiment: experiment whose run trains the autoencoder first, where there is no ``ckpt``; only named here.
        cache: folder for the latents of the items, encoded once; None: items are encoded at every step.
        checksum: 16 hex digits of the autoencoder's weights.

    Raises:
        UserError: no autoencoder.

    Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, arXiv 2112.10752.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        value_range: Range | None = None,
        ckpt: str | Path | None = None,
        experiment: str | None = None,
        cache: str | Path | None = None,
        checksum: str | None = None,
    ):
        super().__init__()
        if model is None:
            raise UserError(
                "this codec needs a trained autoencoder: codec.ckpt=outputs/.../last.ckpt of a run such as "
                "litdiffusion train experiment=mnist_autoencoder, or the folder of a published one"
            )
        if not (callable(getattr(model, "encode", None)) and callable(getattr(model, "decode", None))):
            raise UserError(f"codec.model={type(model).__name__} has no encode and decode; take an autoencoder")
        self.model = model.requires_grad_(False).eval()
        self.mean, self.std = list(mean or ()), list(std or ())
        self.cache = cache
        self.value_range = None if value_range is None else tuple(value_range)

    def train(self, mode: bool = True) -> "Autoencoded":
        return self  # because the autoencoder is never trained here

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        with torch.no_grad():
            return tuple(self._latent(torch.zeros(1, *shape, device=self._weight.device)).shape[1:])

    def encode(self, data: Tensor) -> Tensor:
        latent = self._latent(data)
        return (latent - self._per_channel(self.mean, latent)) / self._per_channel(self.std or [1.0], latent)

    def decode(self, latent: Tensor) -> Tensor:
        z = self._per_channel(self.mean, latent) + self._per_channel(self.std or [1.0], latent) * latent
        decoded = self.model.decode(z.to(self._weight)).to(latent)
        return decoded if self.value_range is None else decoded.clamp(*self.value_range)

    @property
    def constants(self) -> dict[str, Any]:
        return {"latent_mean": self.mean, "latent_std": self.std}

    def measured_on(self, items: Tensor) -> dict[str, Any]:
        """Measures ``mean`` and ``std`` of the latents of training items, unless they are given; returns them."""
        if not self.std:
            with torch.no_grad():
                latents = torch.cat([self._latent(part) for part in items.split(256)])
            latents = latents.double().transpose(0, 1).flatten(1)
            self.mean, self.std = (_rounded(x) for x in (latents.mean(1), latents.std(1, correction=0)))
            self.std = [value or 1.0 for value in self.std]
        return self.constants

    def summary(self, shape: Sequence[int]) -> str:
        """Shape and scale of the latents."""
        low, high = min(self.std, default=1.0), max(self.std, default=1.0)
        size = " x ".join(map(str, self.latent_shape(shape)))
        return f"diffusion in latents of {size}, their deviation by channel {low:.3g} to {high:.3g} before scaling"

    @property
    def _weight(self) -> Tensor:
        return next(self.model.parameters())

    def _latent(self, data: Tensor) -> Tensor:
        return self.model.encode(data.to(self._weight)).chunk(2, dim=1)[0].to(data)

    def _per_channel(self, values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values or [0.0]).to(like).view(1, -1, *(1,) * (like.ndim - 2))


def _rounded(values: Tensor) -> list[float]:
    """Four significant digits, so that another machine's last bits do not make another model."""
    return [float(f"{value:.4g}") for value in values.tolist()]
