"""The size and the channels that images are brought to: as set in the config, or those of a set's first image."""

from collections.abc import Sequence
from typing import Any

from litdiffusion.data.stored import Header, header_of
from litdiffusion.errors import UserError


def checked_size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """``data.image_size`` as (height, width), or None.

    Raises:
        UserError: for anything but a side or [height, width], each at least 1.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if size is not None and (len(size) != 2 or not all(isinstance(side, int) and side >= 1 for side in size)):
        raise UserError(f"data.image_size={image_size}: must be a side or [height, width], each at least 1")
    return None if size is None else tuple(size)


def check_channels(channels: int | None) -> None:
    """Refuses ``data.channels`` other than 1, 3, 4 and None."""
    if channels not in (None, 1, 3, 4):
        raise UserError(f"data.channels={channels}: must be 1 (grey), 3 (RGB) or 4 (RGB with alpha)")


def shape_like(image: Any, size: Sequence[int] | None, channels: int | None) -> tuple[int, int, int]:
    """(C, H, W) as set, else as the Pillow image has it: one channel if it is grey, else three."""
    width, height = image.size
    return (channels or (1 if image.mode in ("1", "L") else 3), *(size or (height, width)))


def header_in(image: Any, shape: Sequence[int], size: Sequence[int] | None, name: str) -> Header:
    """The header of a Pillow image; ``name`` is that of the image in messages.

    Raises:
        UserError: no size is set, and the image has another one than the first, which gave ``shape``.
    """
    height, width = shape[1:]
    if size is None and image.size != (width, height):
        raise UserError(
            f"{name} has {image.height}x{image.width} pixels, the first has {height}x{width}; set data.image_size to "
            f"resize all images"
        )
    return header_of(image)
