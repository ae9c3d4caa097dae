"""Checks of the files behind the torchvision sets, and the error that names bad files and the remedy."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from litdiffusion.errors import UserError

NETWORK_TIMEOUT_SECONDS = 5.0


@contextmanager
def short_socket_timeout(seconds: float = NETWORK_TIMEOUT_SECONDS) -> Iterator[None]:
    """Limits every connection and read to ``seconds``: torchvision itself sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def idx_problem(path: Path) -> str | None:
    """What is wrong with an unpacked IDX file of bytes, or None: its size must agree with its header.

    Header: 00 00 08 (unsigned bytes), the number of dimensions, each dimension as a big-endian 32-bit integer. Source:
    http://yann.lecun.com/exdb/mnist.
    """
    dims = 3 if "images" in path.name else 1
    with path.open("rb") as file:
        head = file.read(4 * (dims + 1))
    if head[:4] != bytes((0, 0, 8, dims)) or len(head) < 4 * (dims + 1):
        return "not an IDX file"
    sizes = [int.from_bytes(head[4 * i : 4 * i + 4], "big") for i in range(1, dims + 1)]
    if dims == 3 and sizes[1:] != [28, 28]:
        return f"holds images of {sizes[1]}x{sizes[2]}, not 28x28"
    expected, actual = len(head) + prod(sizes), path.stat().st_size
    return None if actual == expected else f"{actual} bytes instead of {expected}"


def mnist_problems(dataset: Any, root: Path) -> tuple[Path, list[str], bool]:
    """(folder, one phrase per unusable file, whether an unpacked file is damaged) of an MNIST-like class.

    A file is usable if it is unpacked and has the right size, or is a .gz with torchvision's md5 sum.
    """
    from torchvision.datasets.utils import check_integrity

    folder = root / dataset.__name__ / "raw"
    found, damaged = [], False
    for packed, md5 in dataset.resources:
        plain = folder / packed.removesuffix(".gz")
        if plain.is_file():
            problem = idx_problem(plain)
            damaged |= problem is not None
            found += [] if problem is None else [f"{plain.name} (damaged: {problem}; delete it)"]
        elif not check_integrity(folder / packed, md5):
            found.append(f"{packed} ({_missing_or_damaged(folder / packed)})")
    return folder, found, damaged


def cifar_problems(dataset: Any, root: Path) -> tuple[Path, list[str], bool]:
    """(folder, one phrase per unusable file, False) of a CIFAR class.

    The batches, or their archive, must have torchvision's md5 sums.
    """
    from torchvision.datasets.utils import check_integrity

    folder = root / dataset.base_folder
    batches = [*dataset.train_list, *dataset.test_list, [dataset.meta["filename"], dataset.meta["md5"]]]
    bad = [name for name, md5 in batches if not check_integrity(folder / name, md5)]
    if not bad or check_integrity(root / dataset.filename, dataset.tgz_md5):
        return root, [], False
    phrases = [f"{dataset.filename} ({_missing_or_damaged(root / dataset.filename)})"]
    phrases += [f"{dataset.base_folder}/{name} (damaged)" for name in bad if (folder / name).is_file()]
    return root, phrases, False


def unusable_files_error(dataset: Any, folder: Path, problems: list[str], reason: str = "") -> UserError:
    """The error that names the unusable files, their folder, the reason of a failed download, and the remedy."""
    what = ", ".join(problems) if problems else f"its files cannot be used: {reason}"
    cause = f" (download failed: {reason})" if problems and reason else ""
    return UserError(
        f"{dataset.__name__}: {what}{cause}; put intact copies into {folder.absolute()},"
        " set data.root or LITDIFFUSION_DATA to their folder, or take data=digits, which needs no files"
    )


def last_line(error: BaseException) -> str:
    """The last line of an error's message, where torchvision puts the cause; the class name of an empty message."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _missing_or_damaged(path: Path) -> str:
    return "damaged: wrong md5 sum" if path.is_file() else "missing"
