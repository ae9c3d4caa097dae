"""Measures a folder of many pictures: ``python scripts/folder.py [--count 200000] [--size 32]``.

Writes random pictures, then reads them as ``data=image_folder`` does with a set that is larger than memory: the speed
of decoding alone, of writing the memory-mapped file, of batches from it, and the memory of the process at the end
without the pages of that file.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from litdiffusion.data import ImageFolder

DECODED = 5000
"""How many pictures are decoded for the speed of decoding alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000, help="number of pictures")
    parser.add_argument("--size", type=int, default=32, help="side of a picture in pixels")
    parser.add_argument("--batch", type=int, default=128, help="pictures of a batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), arguments)


def measure(scratch: Path, arguments: argparse.Namespace) -> None:
    """Prints each number on a line of its own."""
    write_pictures(scratch / "pictures", arguments.count, arguments.size)
    common = {"image_size": arguments.size, "batch_size": arguments.batch, "seed": 0, "memory_limit_gb": 0}
    common["val_size"] = min(2000, arguments.count // 10)
    data = ImageFolder(path=scratch / "pictures", cache=scratch / "cache", num_workers=0, **common)
    begin = time.perf_counter()
    data.load()
    said("listing and looking at", arguments.count, begin)
    with ThreadPoolExecutor() as pool:
        begin, some = time.perf_counter(), range(min(DECODED, len(data.train.data)))
        for _ in pool.map(lambda i: data.train.data.index_select(0, np.array([i])), some):
            pass
    said("decoding alone", len(some), begin)
    begin = time.perf_counter()
    data.prepare_data()
    said("writing the file", arguments.count, begin)
    begin = time.perf_counter()
    data.setup("fit")
    print(f"opening it again: {time.perf_counter() - begin:.2f} s")
    for epoch in ("first", "second"):
        begin = time.perf_counter()
        count = sum(len(batch.data) for batch in data.train_dataloader())
        said(f"batches of the {epoch} epoch from the file", count, begin)
    print(f"memory at the end without the file's pages: {peak_mib():.0f} MiB")


def write_pictures(folder: Path, count: int, size: int) -> None:
    """Random colour pictures as PNG files, in ten subfolders."""
    rng = np.random.default_rng(0)
    for name in range(10):
        (folder / str(name)).mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(i % 10) / f"{i}.png", compress_level=1)


def said(what: str, count: int, begin: float) -> None:
    seconds = time.perf_counter() - begin
    print(f"{what}: {count / seconds:.0f} pictures/s ({seconds:.1f} s)", flush=True)


def peak_mib() -> float:
    """Anonymous memory of this process at the end (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["RssAnon"].split()[0]) / 1024


if __name__ == "__main__":
    main()
