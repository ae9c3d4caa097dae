"""What a picture's file holds: its kind, and its values as stored, before any of them becomes a byte."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from litdiffusion.errors import UserError

Range = tuple[float, float]
BYTE, HIGH_BYTE, INTEGER, DECLARED, FLOAT = "8-bit", "8-bit reading of 16-bit colour", "integer", "netpbm", "float"
"""Kinds of values in a file. 16-bit colour outside PNG is read by its high bytes; netpbm files declare their range."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Number of channels of 8 bits -> mode of Pillow."""
_PHOTOMETRIC, _SAMPLE_FORMAT = 0x0106, 0x0153
"""Tags of TIFF files."""


class Header(NamedTuple):
    """What a file says of itself: kind and size of its values, and what reading it would leave out."""

    kind: str
    size: tuple[int, int]
    colour: bool
    alpha: bool
    animated: bool


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


@contextmanager
def opened(path: str | BinaryIO, name: str | None = None) -> Iterator[Any]:
    """The file as a Pillow image; what it raises while it is read becomes a `UserError` that names the file."""
    from PIL import Image

    unreadable = (OSError, SyntaxError, EOFError, ValueError, RuntimeError, Image.DecompressionBombError)
    try:
        with Image.open(path) as file:
            yield file
    except UserError:
        raise
    except unreadable as error:
        raise UserError(f"cannot read the image {name or path} ({error}); repair or remove it") from error


def header(path: str) -> Header:
    """Reads what a file says of itself, without decoding it.

    Raises:
        UserError: for a file that cannot be read; the message names it.
    """
    with opened(path) as file:
        return header_of(file)


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
    with opened(path) as file:
        return extrema_of(colours_of(values_of(file, kind_of(file))), path)


def values_of(image: Any, kind: str) -> np.ndarray:
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
        values = np.asarray(image if image.mode in MODES.values() else image.convert("L" if grey else "RGB"))
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


def num_colours(values: np.ndarray) -> int:
    """Channels of values (H, W, C) that are colours: 1 or 3, the rest is alpha."""
    return 3 if values.shape[2] > 2 else 1


def colours_of(values: np.ndarray) -> np.ndarray:
    """Values (H, W, C) without alpha."""
    return values[..., : num_colours(values)]


def extrema_of(values: np.ndarray, name: str) -> Range:
    """The smallest and largest value; a `UserError` with the file's ``name`` for NaN and infinite ones."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise UserError(f"{name} has values that are NaN or infinite; repair or remove it")
    return low, high
