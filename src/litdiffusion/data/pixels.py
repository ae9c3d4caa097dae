"""How the values of a picture become bytes: their range, transparency, size and channels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from litdiffusion.data.stored import (
    BYTE,
    DECLARED,
    FLOAT,
    HIGH_BYTE,
    INTEGER,
    MODES,
    Range,
    colours_of,
    extrema_of,
    kind_of,
    num_colours,
    opened,
    values_of,
)
from litdiffusion.errors import UserError

SCALES = (1, 15, 255, 1023, 4095, 16383, 65535)
"""Usual largest values, by which a question names the likely range."""
_ORIENTATION = 0x0112
"""The tag of how a picture is turned."""
UNDERSHOOT = -0.5
"""Floats from -1 to 1 with values below this are taken for pictures of that range; others may be resampled ones."""


class Pixels(NamedTuple):
    """How values become bytes: the range of each kind of file, and the colour (r, g, b) under transparent pixels."""

    ranges: Mapping[str, Range] = {BYTE: (0, 255), HIGH_BYTE: (0, 255), DECLARED: (0, 65535)}
    background: tuple[int, int, int] = (255, 255, 255)


def decode(
    path: str | BinaryIO, shape: tuple[int, ...], pixels: Pixels | None = None, name: str | None = None
) -> Tensor:
    """One picture as uint8 ``shape`` = (C, H, W), C = 1, 3 or 4, see `fitted`; ``name``: in messages, for its path.

    Raises:
        UserError: for a file that cannot be read, or values outside their range; the message names it.
    """
    with opened(path, name) as file:
        return fitted(file, shape, pixels or Pixels(), name or str(path))


def fitted(image: Any, shape: tuple[int, ...], pixels: Pixels, name: str) -> Tensor:
    """A Pillow image as uint8 ``shape`` = (C, H, W): scaled to bytes, upright, laid on the background, fitted.

    Values of a range [low, high] become ``255 (x - low) / (high - low)``, rounded. Transparent pixels are laid on the
    background, unless C is 4. The picture is resized to cover H x W, and cropped at the centre.

    Raises:
        UserError: values outside their range; ``name`` is the picture's name in the message.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    image = ImageOps.exif_transpose(_as_bytes(image, pixels, name))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels != 4:
            ground = Image.new("RGBA", image.size, (*pixels.background, 255))
            image = Image.alpha_composite(ground, image)
    image = image.convert(MODES[channels])
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.LANCZOS)
    return torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1).contiguous()


def known_range(kind: str, low: float, high: float) -> Range | None:
    """The range that values from ``low`` to ``high`` belong to, or None if they leave a doubt.

    Floats from 0 or -1 to 1 are those of a picture, values up to 255 those of bytes, and values above 32767 those of
    16 bits. Values so small that they would be nearly black in such a range leave a doubt, and so do floats a little
    beyond [0, 1], as resampling leaves them.
    """
    if kind in (DECLARED, BYTE, HIGH_BYTE) and high == 0:
        return (0, 65535) if kind == DECLARED else (0, 255)
    if kind == DECLARED:
        return (0, 65535)
    if kind == HIGH_BYTE:
        return (0, 255) if high > 127 else None
    if kind == FLOAT and low >= -1 and high <= 1:
        if low < 0:
            return (-1, 1) if low < UNDERSHOOT else None
        return (0, 1) if high > 1 / 16 or high == 0 else None
    if low < 0 or high > 65535:
        return None
    return (0, 65535) if high > 32767 else (0, 255) if 15 < high <= 255 else (0, 255) if high == 0 else None


def likely_range(low: float, high: float) -> str:
    """The range that a question proposes for values from ``low`` to ``high``, in the form of the command line."""
    scale = next((scale for scale in SCALES if high <= scale), None)
    if low >= 0 and scale is not None and not 1 < high < 2:
        return f"[0,{scale}]"
    if low >= UNDERSHOOT and high < 2:  # resampled pictures of [0, 1]; rounded outwards, so that all values fit
        low, high = min(0, math.floor(1e4 * low) / 1e4), max(1, math.ceil(1e4 * high) / 1e4)
    return f"[{low:.6g},{high:.6g}]"


def unlike_ranges(kind: str, ends: Sequence[Range]) -> tuple[int, int] | None:
    """Two of the files with the extrema ``ends`` whose own ranges differ, as 0 to 1 and 0 to 255; None if all agree."""
    own = [known_range(kind, low, high) if high > 0 else None for low, high in ends]
    first = next((i for i, found in enumerate(own) if found is not None), 0)
    other = next((i for i, found in enumerate(own) if found not in (None, own[first])), None)
    return None if other is None else (first, other)


def checked_range(value: Sequence[float] | None) -> Range | None:
    """``data.value_range`` as two numbers, or None.

    Raises:
        UserError: for anything but [low, high] with low < high.
    """
    if value is None:
        return None
    numbers = [x for x in value if isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x)]
    if len(value) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise UserError(f"data.value_range={list(value)}: must be [smallest, largest], such as [0,255] or [0,4095]")
    return float(numbers[0]), float(numbers[1])


def ranges_of(value: Range) -> dict[str, Range]:
    """The range of each kind of file where one range was set for all."""
    ranges = dict.fromkeys((*Pixels().ranges, INTEGER, FLOAT), value)
    return ranges | ({HIGH_BYTE: (0, 255)} if value == (0, 65535) else {})


def colour_of(value: str | Sequence[int] | None) -> tuple[int, int, int]:
    """The colour (r, g, b) of ``data.background``: a name, "#rrggbb" or three numbers from 0 to 255; None is white.

    Raises:
        UserError: for anything else.
    """
    from PIL import ImageColor

    try:
        found = ImageColor.getrgb(value) if isinstance(value, str) else (255, 255, 255) if value is None else value
    except ValueError:
        found = ()
    if len(found) != 3 or not all(isinstance(x, int) and 0 <= x <= 255 for x in found):
        raise UserError(f"data.background={value}: must be a colour such as white, '#ff8000' or [255,128,0]")
    return tuple(found)


def _as_bytes(image: Any, pixels: Pixels, name: str) -> Any:
    """The image with 8 bits a channel; an image of bytes in the range of bytes is returned as it is."""
    from PIL import Image

    kind = kind_of(image)
    if kind not in pixels.ranges:
        raise UserError(f"{name} holds {kind} values unlike the others; set data.value_range=[smallest,largest]")
    low, high = pixels.ranges[kind]
    if kind in (BYTE, HIGH_BYTE) and (low, high) == (0, 255):
        return image
    if kind == HIGH_BYTE or (kind == BYTE and high > 255):
        # Scaled by that range it would be nearly black.
        remedy = "save it as PNG of 16 bits" if kind == HIGH_BYTE else "convert it, or move it to a set of its own"
        raise UserError(f"{name} is an {kind} picture, which cannot fill data.value_range=[{low:g},{high:g}]; {remedy}")
    values = values_of(image, kind)
    colours, alpha = colours_of(values), values[..., num_colours(values) :]
    smallest, largest = extrema_of(colours, name)
    if smallest < low or largest > high:
        odd = smallest if smallest < low else largest
        raise UserError(f"{name} has the value {odd:g}, outside data.value_range=[{low:g},{high:g}]; widen it")
    scaled = [np.rint((colours.astype(np.float64) - low) * (255 / (high - low)))]
    if alpha.size:
        # The alpha channel fills its type, whatever the range of the colours.
        scaled.append(np.rint(alpha * (255 / np.iinfo(alpha.dtype).max)))
    array = np.concatenate(scaled, axis=2).astype(np.uint8)
    result = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array, MODES[array.shape[2]])
    result.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return result
