"""The pictures below a folder: links are followed, cycles cut, classes ordered, and what is left out is named."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from litdiffusion.errors import UserError

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *(
            "png",
            "apng",
            "jpg",
            "jpeg",
            "jpe",
            "jfif",
            "webp",
            "bmp",
            "dib",
            "gif",
            "tif",
            "tiff",
            "avif",
            "qoi",
            "tga",
        ),
        *("ppm", "pgm", "pbm", "pnm", "pfm", "jp2", "j2k", "jpx"),
    )
)
"""Endings of the files that are read as pictures, in lower case."""
SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "icon\r"))
"""Files that file managers leave in folders of pictures, beside hidden ones."""
SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")
)
"""Folders that operating systems and network drives make, which hold no data: thumbnails, deleted files."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
SHOWN = 3
"""How many names a message lists."""


def natural_key(name: str) -> list[tuple[int, float, str]]:
    """A key that sorts names with numbers in them by these numbers: 2, 10, cat2, cat10."""
    if _NUMBER.fullmatch(name):
        return [(0, float(name), name)]
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return [(0, float(part), part) if part.isdecimal() else (1, 0.0, part) for part in parts if part]


def some(names: Iterable[str]) -> str:
    """The first names in a row, and how many others there are."""
    names = list(names)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, noun: str) -> str:
    """A number with its noun in the right number: 1 image, 2 images."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True)
class Listing:
    """The pictures below a folder.

    Args:
        paths: paths relative to the folder, sorted; numbers in names sort as numbers.
        class_names: names of the first-level subfolders if every picture lies in one, else empty.
        why_no_classes: why a folder with subfolders has no classes, with the remedy; else None.
        notes: a line for each kind of thing that was left out.
    """

    paths: list[Path]
    class_names: list[str]
    why_no_classes: str | None
    notes: list[str]


def list_pictures(folder: Path) -> Listing:
    """Lists the pictures below ``folder``, without hidden files; links to folders and files are followed.

    Raises:
        UserError: no such folder, no picture in it, a folder that cannot be read, or a link that leads nowhere.
    """
    if not folder.is_dir():
        raise UserError(f"data.path={folder}: no such folder; set data.path to a folder of images")
    walk = _Walk(folder)
    paths = sorted(walk.pictures(folder), key=lambda path: [natural_key(part) for part in path.parts])
    if not paths:
        raise UserError(f"data.path={folder}: no images ({', '.join(sorted(EXTENSIONS))}) in this folder")
    outside = [path.name for path in paths if len(path.parts) == 1]
    folders = sorted({path.parts[0] for path in paths if len(path.parts) > 1}, key=natural_key)
    why = None
    if folders and outside:
        why = (
            f"{counted(len(outside), 'picture')} beside the class folders {some(folders)} ({some(outside)}): a set "
            f"with classes has every picture in a class folder; move or remove them"
        )
    class_names = [] if outside else folders
    for name in class_names:
        if not name.isprintable():
            raise UserError(f"data.path={folder}: the class folder {name!r} has control characters; rename it")
    return Listing(paths, class_names, why, walk.notes(set(folders)))


class _Walk:
    """One walk over a folder, which remembers what it left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.others: list[str] = []
        self.cycles: list[str] = []

    def pictures(self, folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
        """Paths of the pictures below ``folder``, relative to the root; ``above`` identifies the folders around it."""
        own = _identity(folder)
        if own in above:
            self.cycles.append(folder.relative_to(self.root).as_posix())
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(
                f"the folder {folder} cannot be read ({error.strerror}); allow it or move it away"
            ) from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FILES | SYSTEM_FOLDERS:
                continue
            path = Path(entry.path)
            if path.is_dir():
                yield from self.pictures(path, (*above, own))
            elif not path.exists():
                raise UserError(f"the link {path} leads nowhere ({os.readlink(path)}); repair or remove it")
            elif path.is_file() and path.suffix.lower() in EXTENSIONS:
                yield path.relative_to(self.root)
            else:
                self.others.append(path.relative_to(self.root).as_posix())

    def notes(self, folders: set[str]) -> list[str]:
        """A line for each kind of thing that was left out; ``folders``: first-level folders with pictures."""
        found = []
        if self.others:
            found.append(f"left out {counted(len(self.others), 'file')} of another kind: {some(self.others)}")
        if self.cycles:
            found.append(f"left out links that lead back to a folder around them: {some(self.cycles)}")
        here = (entry for entry in os.scandir(self.root) if entry.is_dir() and not entry.name.startswith("."))
        names = {entry.name for entry in here if entry.name.lower() not in SYSTEM_FOLDERS}
        empty = sorted(names - folders - set(self.cycles), key=natural_key)
        if empty:
            found.append(f"no images in the folder{'s' if len(empty) > 1 else ''} {some(empty)}: no class")
        return found


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino
