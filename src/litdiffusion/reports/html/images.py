"""Pictures as data URIs of WebP, made as small as a page's room needs."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from litdiffusion.reports.html.blocks import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

STILL, MOVING = 150_000, 600_000
"""Largest number of bytes of a picture and of an animation."""
SIZES = ((1400, 84), (1200, 80), (1000, 72), (800, 64), (600, 50), (400, 40))
"""Width and quality, from the first try to the last."""


class Room:
    """Embeds pictures until ``left`` bytes are used, before base64 adds a third."""

    def __init__(self, left: int = 1_900_000):
        self.left = left
        self.refused: list[str] = []
        """Names of the files that could not be read, or had no room left."""

    def embed(self, path: Path, width: int = SIZES[0][0], limit: int = STILL) -> Image | None:
        """The picture or the animation of a file; None if it cannot be read, or has no room."""
        try:
            found = _embedded(path, width, min(limit, self.left))
        except (OSError, ValueError, SyntaxError):  # Pillow's errors for a damaged file
            found = None
        if found is None:
            self.refused.append(path.name)
            return None
        self.left -= 3 * (len(found.source) + len(found.still)) // 4
        return found


def _embedded(path: Path, width: int, limit: int) -> Image | None:
    from PIL import Image as Pillow

    with Pillow.open(path) as file:
        if getattr(file, "n_frames", 1) > 1:
            return _animation(file, width, min(4 * limit, MOVING) if limit == STILL else limit)
        return _still(file.convert("RGB"), width, limit)


def _still(picture: Pixels, width: int, limit: int) -> Image | None:
    for size, quality in SIZES:
        small = _shrunk(picture, min(width, size))
        content = _webp(small, quality=quality)
        if len(content) <= limit:
            return Image(_uri(content), *small.size)
    return None


def _animation(file: Pixels, width: int, limit: int) -> Image | None:
    """All frames with their times; the still is the last frame."""
    from PIL import ImageSequence

    frames, times = [], []
    for frame in ImageSequence.Iterator(file):
        times.append(frame.info.get("duration", 100))
        frames.append(frame.convert("RGB"))
    for size, quality in SIZES:
        small = [_shrunk(frame, min(width, size)) for frame in frames]
        content = _webp(small[0], save_all=True, append_images=small[1:], duration=times, loop=0, quality=quality)
        still = _webp(small[-1], quality=quality)
        if len(content) + len(still) <= limit:
            return Image(_uri(content), *small[0].size, _uri(still))
    return None


def _shrunk(picture: Pixels, width: int) -> Pixels:
    if picture.width <= width:
        return picture
    return picture.resize((width, max(1, picture.height * width // picture.width)), resample=1)


def _webp(picture: Pixels, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, "WEBP", method=2, **options)
    return file.getvalue()


def _uri(content: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(content).decode()}"
