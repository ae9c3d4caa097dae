"""Which columns of a set of the library ``datasets`` are images and class labels, and what they hold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from litdiffusion.data.columns import Table, classes
from litdiffusion.data.image_files import Encoded
from litdiffusion.data.pixels import Pixels, decode
from litdiffusion.errors import UserError, listed, nearest

AUTO = "auto"


class Columns(NamedTuple):
    """The columns of images and of class labels; ``label`` is None without classes. ``names``: of the classes."""

    image: str
    label: str | None
    names: tuple[str, ...]


def chosen_columns(features: Any, image: str, label: str | None, shown: str) -> Columns:
    """The columns called so; ``auto`` is the only one of its kind, and without a ``ClassLabel`` there are no classes.

    Raises:
        UserError: missing columns, several of a kind, or a column of another kind.
    """
    import datasets

    if features is None:
        raise UserError(f"{shown} does not say what its columns hold; take streaming=false")
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    found = _column(features, image, images, "image_column", shown)
    if found is None:
        raise UserError(f"{shown} has no column of images (it has {_listed(features)}); take another set")
    if found not in images:
        raise UserError(f"data.image_column={found} holds {_kind(features[found])}, not images{_instead(images)}")
    found_label = (
        None if label is None else _column(features, label, labels, "label_column", shown, ", or null for none")
    )
    names = tuple(features[found_label].names) if found_label in labels else ()
    return Columns(found, found_label, names)


def _column(features: Any, name: str, kind: list[str], key: str, shown: str, more: str = "") -> str | None:
    if name == AUTO:
        if len(kind) > 1:
            raise UserError(f"{shown} has several such columns; set data.{key} to one of {listed(kind)}{more}")
        return kind[0] if kind else None
    if name not in features:
        raise UserError(
            f"data.{key}={name}: {shown} has no such column{nearest(name, list(features))} ({_listed(features)})"
        )
    return name


def with_names(rows: Any, columns: Columns, shown: str) -> Columns:
    """The columns with names of classes also where the labels are texts or plain numbers: sorted, as in a table."""
    if columns.label is None or columns.names:
        return columns
    return columns._replace(names=_as_texts(rows, columns, shown)[1])


def class_labels(rows: Any, columns: Columns, shown: str) -> Tensor | None:
    """The classes (N,) of all rows; None without classes, also if all labels are below 0: unlabelled images.

    Raises:
        UserError: rows without a label among others, or a class that is not one of ``columns.names``.
    """
    import datasets

    if columns.label is None:
        return None
    if not isinstance(rows.features[columns.label], datasets.ClassLabel):
        index, names = _as_texts(rows, columns, shown)
        if new := [name for name in names if name not in columns.names]:
            raise UserError(
                f"{shown}: {listed(new)} in {columns.label} is no class of the training split; leave it out"
            )
        return torch.tensor([columns.names.index(name) for name in names])[torch.from_numpy(index)]
    values = _values(rows, columns)
    missing = sum(value is None or value < 0 for value in values)
    if missing == len(values):
        return None
    if missing:
        raise UserError(f"{shown}: {missing} of {len(values)} images have no class label; set data.label_column=null")
    return torch.tensor(values, dtype=torch.long)


def _as_texts(rows: Any, columns: Columns, shown: str) -> tuple[np.ndarray, tuple[str, ...]]:
    table = Table({columns.label: np.array(_values(rows, columns), dtype=object)})
    return classes(table, Path(shown), columns.label)


def _values(rows: Any, columns: Columns) -> list[Any]:
    return rows.select_columns([columns.label]).with_format(None)[:][columns.label]


class Rows(Encoded):
    """The images of the rows ``index`` (N,), see `Encoded`; ``rows`` is a set whose images are not decoded."""

    def __init__(self, rows: Any, index: Tensor, column: str, shape: tuple[int, ...], pixels: Pixels, shown: str):
        self.rows, self.index, self.column = rows.select_columns([column]), index, column
        self.item_shape, self.pixels, self.shown = shape, pixels, shown

    def __len__(self) -> int:
        return len(self.index)

    def decode(self, index: int) -> Tensor:
        """The picture of row ``index``."""
        row = int(self.index[index])
        return decoded(self.rows[row][self.column], self.item_shape, self.pixels, f"of row {row} of {self.shown}")


def undecoded(rows: Any, columns: Columns) -> Any:
    """The set with its images as they are stored: Pillow reads the header alone where that is enough."""
    import datasets

    return rows.cast_column(columns.image, datasets.Image(decode=False))


def decoded(value: Any, shape: tuple[int, ...], pixels: Pixels, name: str) -> Tensor:
    """An image as the library stores it, as uint8 ``shape``; ``name`` is the image's in messages."""
    with stored_file(value, name) as file:
        return decode(file, shape, pixels, name)


@contextmanager
def stored_file(value: Any, name: str) -> Iterator[str | BinaryIO]:
    """The file of an image ``{bytes, path}``, in memory, on the disk or at an address that a streamed set names."""
    if value is None or (value["bytes"] is None and value["path"] is None):
        raise UserError(f"the image {name} is missing; filter such rows out, and save the set anew")
    if value["bytes"] is not None:
        yield BytesIO(value["bytes"])
    elif Path(value["path"]).is_file():
        yield value["path"]
    else:
        from datasets.utils.file_utils import xopen

        try:
            with xopen(value["path"], "rb") as file:
                yield BytesIO(file.read())
        except OSError as error:
            raise UserError(f"the image {name} cannot be read ({error}); check the network") from error


def _kind(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__


def _listed(features: Any) -> str:
    return listed([f"{name}: {_kind(feature)}" for name, feature in features.items()])


def _instead(images: Sequence[str]) -> str:
    return f"; take {listed(images)}" if images else "; this set has none"
