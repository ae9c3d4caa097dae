"""Small stand-ins for data sets that would need a download, written file by file in their own formats."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def idx(array: np.ndarray) -> bytes:
    """The bytes of an IDX file of unsigned bytes."""
    sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, name: str = "MNIST", train: int = 64, test: int = 16) -> None:
    """An MNIST-like set of random images under ``root/name/raw``."""
    folder = root / name / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (count, 28, 28))))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, count: int = 64) -> None:
    """A CIFAR-10 of random images, with torchvision told of its md5 sums."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = {"data": random.integers(0, 256, (count, 3072)).astype(np.uint8), "labels": [i % 10 for i in range(count)]}
    contents = {"train_list": rows, "test_list": rows, "meta": {"label_names": [str(i) for i in range(10)]}}
    for attribute, content in contents.items():
        raw = pickle.dumps(content)
        (folder / attribute).write_bytes(raw)
        md5 = hashlib.md5(raw).hexdigest()
        value = {"filename": attribute, "key": "label_names", "md5": md5} if attribute == "meta" else [[attribute, md5]]
        monkeypatch.setattr(CIFAR10, attribute, value)


def write_pictures(folder: Path, count: int = 40) -> None:
    """PNG files in two classes, grey, 12 x 16."""
    random = np.random.default_rng(0)
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 16)).astype(np.uint8)).save(path)


def saved_pictures(folder: Path, count: int = 40) -> Path:
    """A folder that the library datasets saved: grey pictures of 12 x 16 in two classes."""
    datasets = pytest.importorskip("datasets", reason="an extra of the package")
    write_pictures(folder / "pictures", count)
    paths = sorted((folder / "pictures").rglob("*.png"))
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    rows = {"image": list(map(str, paths)), "label": [path.parent.name for path in paths]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(kinds)).save_to_disk(folder / "saved")
    return folder / "saved"
