"""Where a model lies: a path, ``hf:USER/NAME`` on the hub, or the name of one that comes with the package."""

from pathlib import Path

from litdiffusion.errors import UserError, nearest
from litdiffusion.pretrained.hub import PREFIX, downloaded

SHIPPED = Path(__file__).parent / "models"
"""Folder of the models that come with the package, each in the form of an export."""


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir())


def is_shipped(where: str | Path) -> bool:
    """Whether this names a model of the package; a file or folder of that name here comes first."""
    return str(where) in shipped() and not Path(where).exists()


def located(where: str | Path) -> Path:
    """The checkpoint's file, or the folder of an exported model, which is downloaded if it is on the hub.

    Raises:
        UserError: see `downloaded`; or a name much like that of a model of the package.
    """
    if is_shipped(where):
        return SHIPPED / str(where)
    text = str(where)
    if text.startswith(PREFIX):
        return downloaded(text.removeprefix(PREFIX))
    if not Path(where).exists() and (hint := nearest(text, shipped())):
        raise UserError(f"no checkpoint at {text}{hint}")
    return Path(where)


def folder_beside(where: str | Path) -> Path:
    """Folder of what is made of a model: that of its checkpoint, or below ``outputs`` here for all others."""
    text = str(where)
    if not is_shipped(where) and not text.startswith(PREFIX):
        return Path(where).parent
    return Path("outputs") / text.removeprefix(PREFIX).replace("/", "--").replace("@", "--")
