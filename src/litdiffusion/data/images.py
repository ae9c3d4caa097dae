"""Small labelled image sets that fit in memory: torchvision's classics, and scikit-learn's 8x8 digits."""

import lzma
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litdiffusion.data.augment import augment_of
from litdiffusion.data.base import DataModule, hold_out
from litdiffusion.data.batch import Batch
from litdiffusion.data.files import (
    cifar_problems,
    last_line,
    mnist_problems,
    short_socket_timeout,
    unusable_files_error,
)
from litdiffusion.data.loaders import take
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.errors import UserError

_SHAPES = {"MNIST": (1, 28, 28), "FashionMNIST": (1, 28, 28), "KMNIST": (1, 28, 28), "CIFAR10": (3, 32, 32)}

UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    pickle.UnpicklingError,
)
"""Exceptions of torchvision and its unpackers for a missing network or a damaged file."""


class TorchvisionImages(DataModule):
    """MNIST, FashionMNIST, KMNIST or CIFAR10 of torchvision as one uint8 tensor (N, C, H, W), with class labels.

    Validation items are held out of the training split; the official test split is left whole (`test`). Files are read
    from ``root``, in torchvision's own layout, and downloaded if absent.

    Raises:
        UserError: for missing or damaged files; the message names them, their folder, and ``data=digits``, which needs
            no download.
    """

    num_classes = 10
    value_range = BYTES

    def __init__(
        self,
        *,
        dataset: str,
        root: str | Path,
        augment: Mapping[str, Any] | None = None,
        batch_size: int,
        val_size: int = 2_000,
        seed: int,
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        if dataset not in _SHAPES:
            raise UserError(f"data.dataset={dataset}: must be one of {', '.join(_SHAPES)}")
        self.dataset, self.root = dataset, Path(root).expanduser()
        self.shape = _SHAPES[dataset]
        self.augment = augment_of(augment, self.shape)

    def read(self) -> tuple[Batch, Batch]:
        """The official training split, divided into training items and ``val_size`` validation items."""
        return split_off_validation(self._official_split(train=True), self.val_size)

    @property
    def name(self) -> str:
        """Name of the data set in lower case, e.g. "fashionmnist"."""
        return self.dataset.lower()

    def test(self) -> Batch:
        """The official test split, uint8 (10 000, C, H, W), with class labels."""
        return self._official_split(train=False)

    def _official_split(self, train: bool) -> Batch:
        import torchvision

        dataset_class = getattr(torchvision.datasets, self.dataset)
        problems = cifar_problems if hasattr(dataset_class, "base_folder") else mnist_problems
        folder, found, damaged = problems(dataset_class, self.root)
        # torchvision does not check unpacked files, so a download would not replace a damaged one.
        if damaged:
            raise unusable_files_error(dataset_class, folder, found)
        try:
            with short_socket_timeout():
                part = dataset_class(self.root, train=train, download=True)
            self.class_names = class_names_of(part)
            return self._as_batch(part)
        except UNREADABLE as error:
            _, found, _ = problems(dataset_class, self.root)
            raise unusable_files_error(dataset_class, folder, found, last_line(error)) from error

    def _as_batch(self, part: Any) -> Batch:
        data = torch.as_tensor(part.data)
        # torchvision keeps grey images as (N, H, W) and colour ones as (N, H, W, C).
        images = data.unsqueeze(1) if data.ndim == 3 else data.permute(0, 3, 1, 2).contiguous()
        class_label = torch.as_tensor(part.targets, dtype=torch.long)
        if len(class_label) != len(images) or not bool(((class_label >= 0) & (class_label < self.num_classes)).all()):
            raise ValueError(f"{len(class_label)} class labels, {len(images)} images: each needs one from 0 to 9")
        return Batch(images, class_label)


class Digits(DataModule):
    """scikit-learn's 1797 handwritten digits, (1, 8, 8), which need no download.

    Source: Optical recognition of handwritten digits, Alpaydin and Kaynak 1998 (UCI machine learning repository).
    """

    shape = (1, 8, 8)
    num_classes = 10
    value_range = BYTES

    def __init__(
        self, *, augment: Mapping[str, Any] | None = None, batch_size: int, val_size: int = 297, seed: int
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        self.augment = augment_of(augment, self.shape)

    def read(self) -> tuple[Batch, Batch]:
        """Training and validation items; pixel values 0..16 are scaled to 0..255."""
        from sklearn.datasets import load_digits

        images, class_label = load_digits(return_X_y=True)
        data = torch.from_numpy(np.rint(images * (255 / 16)).astype(np.uint8)).reshape(-1, *self.shape)
        return split_off_validation(Batch(data, torch.from_numpy(class_label).long()), self.val_size)


def class_names_of(part: Any) -> tuple[str, ...]:
    """The names of a torchvision set's classes, the first of several names of a class; empty if it has none.

    MNIST's "0 - zero" becomes "zero", because a name stands beside its number anyway, and over narrow pictures.
    """
    names = getattr(part, "classes", None) or getattr(part, "categories", None) or ()
    first = [name[0] if isinstance(name, tuple | list) and name else name for name in names]
    if not all(isinstance(name, str) for name in first):
        return ()
    return tuple(name.removeprefix(f"{k} - ") for k, name in enumerate(first))


def split_off_validation(everything: Batch, val_size: int) -> tuple[Batch, Batch]:
    """Images with class labels (N, ...) as training and validation items, see `hold_out`."""
    train, val = hold_out(len(everything.data), val_size)
    return take(everything, train), take(everything, val)
