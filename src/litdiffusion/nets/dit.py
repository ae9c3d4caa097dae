"""DiT: a transformer over the patches of an image, whose blocks are scaled and gated by noise label and class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention

from litdiffusion.errors import UserError
from litdiffusion.nets.blocks import Conditioning, padded, zeroed
from litdiffusion.nets.conditions import Conditions
from litdiffusion.nets.sizes import check_sizes
from litdiffusion.parts.described import Described

BASE = 100.0
"""Ratio of the largest to the smallest rotary frequency, which is 1 radian per patch."""


def rotary_angles(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """The angles (height * width, dim / 2) by which a head of ``dim`` channels turns at each patch.

    The first half of the angles is ``row * w_i``, the second ``column * w_i``, with ``w_i = BASE^(-4i / dim)``.
    """
    # Not a buffer, because a net in half precision would round it.
    frequencies = BASE ** -(torch.arange(dim // 4, device=device) * 4 / dim)
    rows = torch.arange(height, device=device)[:, None] * frequencies
    columns = torch.arange(width, device=device)[:, None] * frequencies
    return torch.cat([rows.repeat_interleave(width, dim=0), columns.repeat(height, 1)], dim=1)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Turns the pairs (x_j, x_{j + dim/2}) of x (..., N, dim) by the angles (N, dim / 2).

    The product of two turned vectors then depends on their places only through the difference of the places.

    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, arXiv 2104.09864; two
    axes: Heo et al., "Rotary Position Embedding for Vision Transformer", 2024, arXiv 2403.13298.
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Block(nn.Module):
    """``h = x + g1 * attention((1 + a1) norm(x) + b1)``, then ``h + g2 * mlp((1 + a2) norm(h) + b2)``.

    ``a, b, g`` are linear in the conditioning and start at zero ("adaLN-Zero"), so that the block starts as the
    identity. ``norm`` is a layer norm without parameters. (B, N, width), (B, width), (N, width / heads / 2) ->
    (B, N, width).
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, conditioning: Tensor, angles: Tensor) -> Tensor:
        a1, b1, g1, a2, b2, g2 = self.modulation(conditioning)[:, None].chunk(6, dim=-1)
        x = x + g1 * self._attention(torch.addcmul(b1, self.norm(x), 1 + a1), angles)
        return x + g2 * self.mlp(torch.addcmul(b2, self.norm(x), 1 + a2))

    def _attention(self, x: Tensor, angles: Tensor) -> Tensor:
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, dim)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        mixed = scaled_dot_product_attention(turned(query, angles), turned(key, angles), value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class DiT(Described, nn.Module):
    """Cuts the image into patches, each of which becomes a vector; ``depth`` transformer blocks; patches again.

    Positions are rotary, in two dimensions, and therefore known for any size. Images whose sides are no multiples of
    ``patch`` are padded with zeros below and to the right, and the output is cropped.

    Args:
        shape: (channels, height, width) of one sample.
        noise_label_range: the smallest and the largest noise label.
        width: size of the vectors; a multiple of ``4 * heads``.
        depth: number of blocks.
        heads: number of heads of attention.
        patch: side of a patch.
        out_channels: channels of the output, if they are not shape[0] (learned variance).
        num_classes: K; a learned vector for the class is added to the conditioning. 0: ``class_label`` is ignored.
        conditions: continuous conditions, whose vectors are added to that of the class, see `nets.conditions`.

    Shapes: x (B, *shape), noise_label (B,), class_label (B,) or None (see `nets.classes`)
    -> (B, out_channels, *shape[1:]).

    Raises:
        UserError: for data that are no images, and for sizes that do not fit each other.

    Source: Peebles, Xie, "Scalable Diffusion Models with Transformers", 2022, arXiv 2212.09748, with rotary positions
    in place of added ones.
    """

    def __init__(
        self,
        shape: Sequence[int],
        noise_label_range: tuple[float, float],
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int = 2,
        out_channels: int | None = None,
        num_classes: int = 0,
        conditions: Conditions = (),
    ):
        super().__init__()
        _check(shape, width=width, depth=depth, heads=heads, patch=patch)
        self.patch, self.dim = patch, width // heads
        self.conditioning = Conditioning(width, noise_label_range, num_classes, conditions)
        self.first = nn.Linear(shape[0] * self.patch**2, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.last = zeroed(nn.Linear(width, (out_channels or shape[0]) * self.patch**2))

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        conditioning = self.conditioning(noise_label, class_label, x.dtype)
        patches = pixel_unshuffle(padded(x, self.patch), self.patch)
        angles = rotary_angles(*patches.shape[-2:], self.dim, x.device)
        h = self.first(patches.flatten(2).mT)
        for block in self.blocks:
            h = block(h, conditioning, angles)
        a, b = self.modulation(conditioning)[:, None].chunk(2, dim=-1)
        h = self.last(torch.addcmul(b, self.norm(h), 1 + a))
        return pixel_shuffle(h.mT.unflatten(2, patches.shape[-2:]), self.patch)[..., :height, :width]


def _check(shape: Sequence[int], **sizes: int) -> None:
    if len(shape) != 3:
        raise UserError(
            f"model=dit needs image data of shape (channels, height, width), got {tuple(shape)}; take "
            f"model=residual_mlp for vectors, model=unet1d for sequences, or image data such as data=digits"
        )
    check_sizes(**sizes)
    if sizes["width"] % (4 * sizes["heads"]):
        raise UserError(
            f"model.width must be a multiple of 4 * model.heads = {4 * sizes['heads']}, because rotary positions turn "
            f"pairs of channels along two axes, got {sizes['width']}"
        )
