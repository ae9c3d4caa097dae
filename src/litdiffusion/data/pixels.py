"""How the values of a picture become bytes: their range, transparency, size and channels."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from litdiffusion.errors import UserError

Range = tuple[float, float]
BYTE, HIGH_BYTE, INTEGER, DECLARED, FLOAT = "8-bit", "8-bit reading of 16-bit colour", "integer", "netpbm", "float"
"""Kinds of values in a file. 16-bit colour outside PNG is read by its high bytes; netpbm files declare their range."""
SCALES = (1, 15, 255, 1023, 4095, 16383, 65535)
"""Usual largest values, by which a question names the likely range."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ORIENTATION, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 0x0106, 0x0153
"""Tags of TIFF files."""
UNDERSHOOT = -0.5
"""Floats from -1 to 1 with values below this are taken for pictures of that range; others may be resampled ones."""


class Header(NamedTuple):
    """What a file says of itself: kind and size of its values, and what reading it would leave out."""

    kind: str
    size: tuple[int, int]
    colour: bool
    alpha: bool
    animated: bool


class Pixels(NamedTuple):
    """How values become bytes: the range of each kind of file, and the colour (r, g, b) under transparent pixels."""

    ranges: Mapping[str, Range] = {BYTE: (0, 255), HIGH_BYTE: (0, 255), DECLARED: (0, 65535)}
    background: tuple[int, int, int] = (255, 255, 255)


def kind_of(image: Any) -> str:
    """The kind of a picture's values."""
    if image.mode == "F":
        return FLOAT
    if _is_signed_byte(image):
        return INTEGER
    codec, raw = (image.tile[0][0], str(image.tile[0][3])) if getattr(image, "tile", None) else ("", "")
    if image.mode.startswith("I"):
        return DECLARED if codec == "ppm" else INTEGER
    if "16" in raw and codec != "ppm":
        return INTEGER if image.format == "PNG" else HIGH_BYTE
    return BYTE


def header(path: str) -> Header:
    """Reads what a file says of itself, without decoding it.

    Raises:
        UserError: for a file that cannot be read; the message names it.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            return header_of(file)
    except _unreadable() as error:
        raise _refusal(path, error) from error


def header_of(image: Any) -> Header:
    """The header of a Pillow image."""
    colour = image.mode not in ("1", "L", "LA", "La", "F") and not image.mode.startswith("I")
    animated = bool(getattr(image, "is_animated", False))
    return Header(kind_of(image), image.size, colour, image.has_transparency_data, animated)


def extrema(path: str) -> Range:
    """The smallest and largest value of a file, without its alpha channel.

    Raises:
        UserError: for a file that cannot be read, or that holds NaN or infinite values.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            return _extrema(_colours(_values(file, kind_of(file))), path)
    except _unreadable() as error:
        raise _refusal(path, error) from error


def decode(path: str, shape: tuple[int, ...], pixels: Pixels | None = None) -> Tensor:
    """One picture as uint8 ``shape`` = (C, H, W), C = 1, 3 or 4, see `fitted`.

    Raises:
        UserError: for a file that cannot be read, or values outside their range; the message names it.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            return fitted(file, shape, pixels or Pixels(), path)
    except _unreadable() as error:
        raise _refusal(path, error) from error


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
    image = image.convert(_MODES[channels])
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
    values = _values(image, kind)
    colours, alpha = _colours(values), values[..., _num_colours(values) :]
    smallest, largest = _extrema(colours, name)
    if smallest < low or largest > high:
        odd = smallest if smallest < low else largest
        raise UserError(f"{name} has the value {odd:g}, outside data.value_range=[{low:g},{high:g}]; widen it")
    scaled = [np.rint((colours.astype(np.float64) - low) * (255 / (high - low)))]
    if alpha.size:
        # The alpha channel fills its type, whatever the range of the colours.
        scaled.append(np.rint(alpha * (255 / np.iinfo(alpha.dtype).max)))
    array = np.concatenate(scaled, axis=2).astype(np.uint8)
    result = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array, _MODES[array.shape[2]])
    result.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return result


def _values(image: Any, kind: str) -> np.ndarray:
    """The stored values (H, W, C), C = 1 to 4; an even C ends with alpha, which is made from a transparent colour."""
    transparent = image.info.get("transparency")
    if _is_signed_byte(image):
        values = np.asarray(image).view(np.int8)
    elif kind in (INTEGER, FLOAT) and _tag(image, _PHOTOMETRIC) == 0:
        values = _white_is_zero(image)
    elif kind == INTEGER and not image.mode.startswith("I"):
        values = _deep_png(image)
    elif kind in (BYTE, HIGH_BYTE):
        image = image.convert("RGBA") if image.has_transparency_data and image.mode != "LA" else image
        grey = image.mode in ("1", "L", "LA")
        values = np.asarray(image if image.mode in _MODES.values() else image.convert("L" if grey else "RGB"))
    else:
        values = np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values
    if transparent is None or not values.shape[2] % 2 or kind != INTEGER:
        return values
    alpha = np.where((values == np.asarray(transparent)).all(-1, keepdims=True), 0, 65535).astype(np.uint16)
    return np.concatenate((values.astype(np.uint16), alpha), axis=2)


def _tag(image: Any, number: int) -> Any:
    """A tag of a TIFF file, the first number if it has several; None for other files."""
    found = getattr(image, "tag_v2", {}).get(number)
    return found[0] if isinstance(found, tuple) and found else found


def _is_signed_byte(image: Any) -> bool:
    """Whether the file holds bytes from -128 to 127, which Pillow reads as 0 to 255."""
    return image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == 2


def _white_is_zero(image: Any) -> np.ndarray:
    """The values of a TIFF file in which 0 is white, inverted as Pillow inverts those of 8 bits."""
    if not image.mode.startswith("I;16"):
        raise ValueError("0 is white in it, and its largest value is not known; save it with 0 as black")
    return 65535 - np.asarray(image)


def _deep_png(image: Any) -> np.ndarray:
    """The 16-bit values (H, W, C) of a PNG whose high bytes alone Pillow would read.

    Grey with alpha has four bytes a pixel, read as four channels. Colours are read twice: in the order of bytes that
    the file does not have, what Pillow takes for the high byte is the low one.
    """
    position = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(position)
    raw = image.tile[0][3]
    if raw == "LA;16B":
        return _unpacked(content, "RGBA").reshape(*image.size[::-1], 2, 2) @ np.array([256, 1], np.uint16)
    high, low = (_unpacked(content, raw[:-1] + order).astype(np.uint16) for order in "BL")
    return 256 * high + low


def _unpacked(content: bytes, raw: str) -> np.ndarray:
    """The bytes (H, W, C) of a file, unpacked as if its pixels were stored in the form ``raw``."""
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        codec, extents, offset, _ = image.tile[0]
        image.tile = [(codec, extents, offset, raw)]
        return np.asarray(image)


def _num_colours(values: np.ndarray) -> int:
    return 3 if values.shape[2] > 2 else 1


def _colours(values: np.ndarray) -> np.ndarray:
    return values[..., : _num_colours(values)]


def _extrema(values: np.ndarray, name: str) -> Range:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise UserError(f"{name} has values that are NaN or infinite; repair or remove it")
    return low, high


def _unreadable() -> tuple[type[Exception], ...]:
    from PIL import Image

    return OSError, SyntaxError, EOFError, ValueError, RuntimeError, Image.DecompressionBombError


def _refusal(path: str | Path, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"cannot read the image {path} ({error}); repair or remove it")
