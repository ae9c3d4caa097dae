"""``litdiffusion init my_project``: the files that a project of one's own needs. Imports no torch."""

import argparse
import keyword
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from litdiffusion.errors import UserError

TEMPLATE, NAME = Path(__file__).parent / "project", "my_project"
"""A project that runs as it is, and its name, which is replaced."""


def main(program: str) -> None:
    """Reads the command line of ``program`` and writes the project."""
    parser = argparse.ArgumentParser(
        program, description="Writes a project of your own: conf/, a network, a test and a README, ready to train."
    )
    parser.add_argument("folder", type=Path, help="a new folder; its name is that of the project's Python package")
    folder = parser.parse_args().folder
    start(folder)
    print(f"wrote {folder}; next: cd {folder} && litdiffusion train --config-dir conf experiment=first")


def start(folder: Path) -> None:
    """Writes the project into a new or empty folder, with a package of the folder's name ("-" becomes "_").

    Raises:
        UserError: the name is no name of a package or is taken; the folder holds files or cannot be written.
    """
    name = folder.absolute().name.replace("-", "_")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"{folder.name!r} cannot be the name of a Python package; take letters, digits and _")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; give a new folder")
        if name in ("conf", "tests", "outputs", "data") or _is_package(name):
            raise UserError(f"{name} is the name of another package or folder, which would hide it; take another name")
        for path, text in _files(name):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be written ({error.strerror})") from error


def _is_package(name: str) -> bool:
    """Whether Python finds a package of this name; any folder without files of Python's own does not count."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _files(name: str) -> Iterator[tuple[str, str]]:
    """Path and text of each file of a project of this name."""
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_file() and source.suffix != ".pyc":
            path = source.relative_to(TEMPLATE).as_posix().replace("gitignore", ".gitignore")
            yield path.replace(NAME, name), source.read_text(encoding="utf-8").replace(NAME, name)
