"""Any labelled image set of torchvision by the name of its class."""

import inspect
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from litdiffusion.data import pixels
from litdiffusion.data.augment import augment_of
from litdiffusion.data.base import DataModule, check_at_least
from litdiffusion.data.batch import Batch
from litdiffusion.data.changes import changes
from litdiffusion.data.files import last_line, short_socket_timeout, unusable_files_error
from litdiffusion.data.images import UNREADABLE, class_names_of, split_off_validation
from litdiffusion.data.picture_sizes import check_channels, checked_size, header_in, shape_like
from litdiffusion.data.pixels import Pixels
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.errors import UserError, nearest

OWN = ("self", "root", "train", "transform", "transforms", "target_transform", "download", "loader")
"""Arguments that are set here, or are no plain values."""
_TRAIN, _TEST = "train", "test"


class TorchvisionSet(DataModule):
    """The set ``torchvision.datasets.<name>`` as one uint8 tensor (N, C, H, W), if its items are (image, number).

    Validation items are held out of the training part; the official test part, if there is one, is left whole (`test`).
    Files are read from ``root`` in torchvision's own layout, and downloaded if absent and the class can do that.

    Args:
        name: name of the class, such as QMNIST, EMNIST, SVHN or STL10.
        options: further arguments of the class, such as ``{split: letters}`` of EMNIST.
        root: folder of the files.
        image_size: side in pixels, or [height, width]; None: that of the first image.
        channels: 1, 3 or 4; None: 1 if the first image is grey, else 3.
        augment: changes of training images, see `Augment`.
        batch_size, val_size, seed: see `DataModule`.
        memory_limit_gb: largest size in memory, in 10⁹ bytes.

    Raises:
        UserError: an unknown class or option, missing files, or items that are not (image, number).
    """

    value_range = BYTES

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any] | None = None,
        root: str | Path,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        augment: Mapping[str, Any] | None = None,
        batch_size: int,
        val_size: int = 2_000,
        seed: int,
        memory_limit_gb: float = 4.0,
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        self.dataset, self.root, self.options = name, Path(root).expanduser(), dict(options or {})
        self.dataset_class = _class_called(name)
        _check_options(self.dataset_class, self.options)
        check_channels(channels)
        check_at_least("memory_limit_gb", memory_limit_gb, 0)
        self.image_size, self.channels, self.memory_limit_gb = checked_size(image_size), channels, memory_limit_gb
        self._augment_settings = augment
        self._notes: list[str] = []

    @property
    def name(self) -> str:
        """Name of the class in lower case, e.g. "qmnist"."""
        return self.dataset.lower()

    def read(self) -> tuple[Batch, Batch]:
        """The training part, divided into training items and ``val_size`` validation items; sets the set's facts."""
        part = self._part(_TRAIN)
        self.shape = self._shape_of(part)
        self.augment = augment_of(self._augment_settings, self.shape)
        everything = self._as_batch(part)
        labels = everything.class_label
        names = class_names_of(part)
        if labels is not None:
            self.num_classes = max(int(labels.max()) + 1, len(names))
            self.class_names = names if len(names) == self.num_classes else ()
        return split_off_validation(everything, self.val_size)

    def notes(self) -> list[str]:
        """The counts and classes, and how images became bytes."""
        return [*super().notes(), *self._notes]

    def test(self) -> Batch:
        """The official test part with its class labels; the validation items if the class has none."""
        self.load()
        return self._as_batch(self._part(_TEST)) if self._part_argument() else self.val

    def _part_argument(self) -> str | None:
        """The argument that chooses the training or the test part; None if the class has none, or it is an option."""
        arguments = inspect.signature(self.dataset_class).parameters
        if "train" in arguments:
            return "train"
        default = arguments["split"].default if "split" in arguments else None
        return "split" if default in (_TRAIN, "trainval") and "split" not in self.options else None

    def _part(self, part: str) -> Any:
        """The torchvision object of a part; its files are downloaded only if they are absent."""
        arguments = inspect.signature(self.dataset_class).parameters
        given: dict[str, Any] = dict(self.options)
        if "root" in arguments:
            given["root"] = self.root
        match self._part_argument():
            case "train":
                given["train"] = part == _TRAIN
            case "split":
                given["split"] = _TEST if part == _TEST else arguments["split"].default
        try:
            if "download" not in arguments:
                return self.dataset_class(**given)
            try:
                return self.dataset_class(**given, download=False)
            except UNREADABLE:
                with short_socket_timeout():
                    return self.dataset_class(**given, download=True)
        except (*UNREADABLE, ImportError) as error:
            raise unusable_files_error(self.dataset_class, self.root, [], last_line(error)) from error

    def _shape_of(self, part: Any) -> tuple[int, int, int]:
        return shape_like(self._item(part, 0)[0], self.image_size, self.channels)

    def _item(self, part: Any, index: int) -> tuple[Any, int]:
        """Item ``index`` as a Pillow image and a number.

        Raises:
            UserError: any other item, or one that cannot be read.
        """
        from PIL import Image

        try:
            item = part[index]
        except UNREADABLE as error:
            raise UserError(
                f"{self.dataset}: item {index} cannot be read ({last_line(error)}); repair its file"
            ) from error
        kinds = [type(value).__name__ for value in item] if isinstance(item, tuple) else [type(item).__name__]
        number = _number(item[1]) if len(kinds) == 2 else None
        if number is None or not isinstance(item[0], Image.Image):
            raise UserError(
                f"data.name={self.dataset} gives items ({', '.join(kinds)}), but (image, number) is needed; take "
                f"another set, other data.options, or write a data module"
            )
        return item[0], number

    def _as_batch(self, part: Any) -> Batch:
        """All items of a part; class labels below 0 mean that the part has none."""
        count = len(part)
        if count * prod(self.shape) > self.memory_limit_gb * 1e9:
            raise UserError(
                f"data.name={self.dataset}: {count} images of {self.shape} are more than data.memory_limit_gb="
                f"{self.memory_limit_gb:g}; raise it, lower data.image_size, or take data=image_folder"
            )
        images = torch.empty((count, *self.shape), dtype=torch.uint8)
        labels, headers = torch.empty(count, dtype=torch.long), []
        for index in range(count):
            image, labels[index] = self._item(part, index)
            name = f"data.name={self.dataset}: item {index}"
            headers.append(header_in(image, self.shape, self.image_size, name))
            images[index] = pixels.fitted(image, self.shape, Pixels(), f"item {index} of {self.dataset}")
        self._notes = changes(headers, self.shape, Pixels())
        if count and int(labels.min()) < 0:
            self._notes.append(
                f"{self.dataset}: class labels below 0 mean unlabelled images, so the set has no classes"
            )
            return Batch(images)
        return Batch(images, labels)


def _class_called(name: str) -> Any:
    """The class ``torchvision.datasets.<name>``."""
    import torchvision

    known = {
        key: getattr(torchvision.datasets, key)
        for key in torchvision.datasets.__all__
        if not key.endswith(("Folder", "VisionDataset"))
    }
    if name not in known:
        raise UserError(f"data.name={name}: torchvision.datasets has no such set{nearest(str(name), list(known))}")
    return known[name]


def _check_options(dataset_class: Any, options: Mapping[str, Any]) -> None:
    """Refuses options that the class does not take, and texts that could be paths."""
    known = [name for name in inspect.signature(dataset_class).parameters if name not in OWN]
    for name, value in options.items():
        if name not in known:
            takes = f" (it takes {', '.join(known)})" if known else " (it takes none)"
            raise UserError(
                f"data.options.{name} is not an option of {dataset_class.__name__}{nearest(name, known)}{takes}"
            )
        values = value if isinstance(value, list | tuple) else [value]
        if not all(x is None or isinstance(x, bool | int | float | str) for x in values) or any(
            isinstance(x, str) and any(mark in x for mark in ("/", "\\", "..")) for x in values
        ):
            raise UserError(f"data.options.{name}={value!r}: must be a number, a word, or a list of these, and no path")


def _number(value: Any) -> int | None:
    """A whole number, also numpy's or a tensor's; None for anything else."""
    if isinstance(value, bool) or getattr(value, "ndim", 0):
        return None
    try:
        return value.__index__()
    except (AttributeError, TypeError, ValueError):
        return None
