"""The loss of an autoencoder."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described


class EncoderDecoder(Protocol):
    """A network with two directions: x -> mean and log-variance (dimension 1) of its latent z, and z -> x."""

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


class ReconstructionLosses(NamedTuple):
    """Per item, each of shape (B,): the loss ``value`` and its parts without their weights."""

    value: Tensor
    reconstruction: Tensor
    kl: Tensor
    perceptual: Tensor | None = None

    def mean(self) -> Tensor:
        """The loss of the batch."""
        return self.value.mean()

    def detach(self) -> "ReconstructionLosses":
        """The same losses without gradients."""
        return ReconstructionLosses(*(None if x is None else x.detach() for x in self))


class ReconstructionObjective(Described, nn.Module):
    """``mean |x - decode(z)|² + kl_weight * KL(q(z | x) | N(0, 1)) + perceptual_weight * mean |f(x) - f(decode(z))|²``.

    ``q(z | x) = N(m, s²)`` with m and log s² from `encode`, and ``z = m + s * noise``. All terms are means over their
    coordinates: of the image, of the latent (``(m² + s² - log s² - 1) / 2``), of the features f. ``kl_weight = 0``
    with ``sample = false`` is a plain autoencoder.

    Args:
        kl_weight: small weights, such as 1e-3, keep the latents near unit scale and the images sharp.
        perceptual_weight: weight of the distance of features; 0: none.
        sample: whether z is drawn in training; false: z = m.
        features: images (B, C, H, W) -> features (B, d), differentiable, with weights that do not change.

    Raises:
        UserError: negative weights, or a perceptual weight without features.

    Source: Kingma, Welling, "Auto-Encoding Variational Bayes", 2013, arXiv 1312.6114; the weights and the perceptual
    term after Rombach et al., 2022, arXiv 2112.10752, section 3.1 and appendix G.
    """

    def __init__(
        self,
        kl_weight: float = 1e-3,
        perceptual_weight: float = 0.0,
        sample: bool = True,
        features: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        for name, value in (("kl_weight", kl_weight), ("perceptual_weight", perceptual_weight)):
            if not 0 <= value < float("inf"):
                raise UserError(f"objective.{name} must be a finite number of at least 0, got {value}")
        if perceptual_weight and features is None:
            raise UserError(
                "objective.perceptual_weight needs the features of a trained classifier; take metrics=classifier, "
                "or objective.perceptual_weight=0"
            )
        self.kl_weight, self.perceptual_weight, self.sample = kl_weight, perceptual_weight, sample
        self._features = [features]  # in a list, so that torch does not train or save it

    def forward(
        self, autoencoder: EncoderDecoder, x: Tensor, noise: Callable[[Tensor], Tensor] | None = torch.randn_like
    ) -> ReconstructionLosses:
        """The losses of items x (B, ...); with ``noise=None`` z is the mean m."""
        mean, log_variance = autoencoder.encode(x).chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)  # exp of more overflows in half precision
        drawn = noise is not None and self.sample
        z = mean + (log_variance / 2).exp() * noise(mean) if drawn else mean
        decoded = autoencoder.decode(z)
        reconstruction = _mean_of_items((decoded - x).square())
        kl = _mean_of_items(mean.square() + log_variance.exp() - log_variance - 1) / 2
        value, perceptual = reconstruction + self.kl_weight * kl, None
        if self.perceptual_weight:
            features = self._features[0]
            perceptual = _mean_of_items((features(decoded) - features(x)).square())
            value = value + self.perceptual_weight * perceptual
        return ReconstructionLosses(value, reconstruction, kl, perceptual)


def _mean_of_items(x: Tensor) -> Tensor:
    return x.float().flatten(1).mean(1)
