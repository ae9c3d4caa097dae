"""A small convolutional autoencoder for images."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from litdiffusion.errors import UserError
from litdiffusion.nets.blocks import RMSNorm, zeroed
from litdiffusion.nets.sizes import check_sizes, check_widths
from litdiffusion.parts.described import Described


class PlainBlock(nn.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))``; (B, C, H, W). The last convolution starts at zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(channels) for _ in range(2))
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(silu(self.norms[1](self.first(silu(self.norms[0](x))))))


class Autoencoder(Described, nn.Module):
    """Maps an image to the normal distribution of a smaller latent, and a latent to an image.

    - `encode`: a 3x3 convolution to the first width; level by level ``blocks`` residual blocks, and 2x2 squares of
      pixels become channels; a 3x3 convolution to the mean and the log-variance of each latent value.
    - `decode`: the inverse, with weights of its own.

    With n widths the latent has the size H / 2^(n-1) x W / 2^(n-1), in ``latent_channels`` channels.

    Args:
        shape: (channels, height, width) of one image; the sides are multiples of 2^(n-1).
        channels: width of each level, from the full size on.
        latent_channels: channels of the latent.
        blocks: residual blocks of a level, each way.

    Shapes: x (B, *shape) -> mean and log-variance (B, 2 latent_channels, h, w); z (B, latent_channels, h, w) -> x.

    Raises:
        UserError: data that are no images, or sides that cannot be halved so often.

    Source: Kingma, Welling, "Auto-Encoding Variational Bayes", 2013, arXiv 1312.6114; convolutional with a small latent
    image as in Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, arXiv 2112.10752.
    """

    def __init__(
        self, shape: Sequence[int], channels: Sequence[int] = (32, 64), latent_channels: int = 4, blocks: int = 1
    ):
        super().__init__()
        _check(shape, channels, latent_channels, blocks)
        widths = list(channels)
        self.latent_shape = (latent_channels, *(side // 2 ** (len(widths) - 1) for side in shape[1:]))

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(PlainBlock(width) for _ in range(blocks)))

        self.first = nn.Conv2d(shape[0], widths[0], 3, padding=1)
        self.down = nn.ModuleList(stage(width) for width in widths)
        self.contract = nn.ModuleList(nn.Conv2d(4 * i, o, 1) for i, o in pairwise(widths))
        self.to_latent = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)
        self.from_latent = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.up = nn.ModuleList(stage(width) for width in widths)
        self.expand = nn.ModuleList(nn.Conv2d(o, 4 * i, 1) for i, o in pairwise(widths))
        self.norm = RMSNorm(widths[0])
        self.last = nn.Conv2d(widths[0], shape[0], 3, padding=1)

    def encode(self, x: Tensor) -> Tensor:
        """Mean and log-variance, one after the other in dimension 1, of the latents of images x."""
        h = self.down[0](self.first(x))
        for contract, stage in zip(self.contract, self.down[1:], strict=True):
            h = stage(contract(pixel_unshuffle(h, 2)))
        return self.to_latent(h)

    def decode(self, z: Tensor) -> Tensor:
        """The images of latents z."""
        h = self.up[-1](self.from_latent(z))
        for expand, stage in zip(reversed(self.expand), reversed(self.up[:-1]), strict=True):
            h = stage(pixel_shuffle(expand(h), 2))
        return self.last(silu(self.norm(h)))

    def forward(self, x: Tensor) -> Tensor:
        """The images of the latents' means: ``decode(mean of encode(x))``."""
        return self.decode(self.encode(x).chunk(2, dim=1)[0])


def _check(shape: Sequence[int], channels: Sequence[int], latent_channels: int, blocks: int) -> None:
    if len(shape) != 3:
        raise UserError(
            f"model=autoencoder needs image data of shape (channels, height, width), got {tuple(shape)}; take "
            f"data=digits or other images"
        )
    check_widths(channels)
    check_sizes(latent_channels=latent_channels, blocks=blocks)
    halvings = len(channels) - 1
    factor = 2**halvings
    if any(side % factor for side in shape[1:]):
        raise UserError(
            f"model.channels={list(channels)} halves the image {halvings} times, so its sides must be multiples of "
            f"{factor}, got {shape[1]} x {shape[2]}; take fewer levels, or set data.image_size where the data can be "
            f"resized"
        )
