"""The lines that say how pictures were changed on their way to bytes of one shape."""

from collections.abc import Sequence

from litdiffusion.data.folders import counted
from litdiffusion.data.pixels import Pixels
from litdiffusion.data.stored import BYTE, Header


def changes(headers: Sequence[Header], shape: tuple[int, ...], pixels: Pixels, seen: str = "") -> list[str]:
    """A line for each way in which pictures with these headers are changed; ``seen`` says which were looked at."""
    channels, height, width = shape

    def pictures(count: int) -> str:
        return f"{counted(count, 'picture')}{seen}"

    found = []
    for kind, (low, high) in pixels.ranges.items():
        count = sum(header.kind == kind for header in headers)
        if count and (kind != BYTE or (low, high) != (0, 255)):
            found.append(f"{pictures(count)} ({kind}): values in [{low:g}, {high:g}] become bytes 0 to 255")
    sizes = [header.size for header in headers]
    if resized := sum(size != (width, height) for size in sizes):
        (low_w, low_h), (high_w, high_h) = (tuple(map(end, zip(*sizes, strict=True))) for end in (min, max))
        found.append(
            f"{pictures(resized)} resized to cover {height}x{width} (height x width) and cropped at the centre; the "
            f"files have {low_h}x{low_w} to {high_h}x{high_w}"
        )
    if channels == 1 and (count := sum(header.colour for header in headers)):
        found.append(f"{pictures(count)} in colour become grey (data.channels=3 keeps colour)")
    if channels != 4 and (count := sum(header.alpha for header in headers)):
        white = pixels.background == (255, 255, 255)
        ground = "white" if white else "rgb({}, {}, {})".format(*pixels.background)
        found.append(
            f"{pictures(count)} with transparency laid on {ground} (data.background; data.channels=4 keeps it)"
        )
    if count := sum(header.animated for header in headers):
        found.append(f"{pictures(count)} with several frames: only the first is read")
    return found
