"""Features of real images, computed once for a data set and a feature net, and kept in a file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from litdiffusion.data.base import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.errors import UserError
from litdiffusion.measure.cache import Cached, cached, key_of
from litdiffusion.measure.features.extractor import Extractor, FeatureMaps, joined

PARTS: dict[str, Callable[[DataModule], Sequence[Batch]]] = {
    "train": lambda data: [data.train],
    "full": lambda data: [data.train, data.val],
    "test": lambda data: [data.test()],
}
_CHUNK = 1_000


def reference_features(
    extractor: Extractor, data: DataModule, part: str, n: int | None, cache: str | Path
) -> FeatureMaps:
    """Features of the first min(n, size) images of ``part``, of all for n = None.

    Parts: "train", "full" (the training images, then those held out of them for validation), and "test" (see
    `DataModule.test`).

    The file is ``<cache>/features-<key>.safetensors``. The key changes with the data, the part, n and the extractor's
    name. A damaged or foreign file is named in a warning and replaced.

    Raises:
        UserError: for another part, n < 1, or a cache that cannot be written.
    """
    if part not in PARTS or (n is not None and n < 1):
        raise UserError(f"reference features need the part train, full or test, and n >= 1 images; got {part!r}, n={n}")
    data.load()
    batches = PARTS[part](data)
    size = sum(len(batch.data) for batch in batches)
    n = size if n is None else min(n, size)
    key = key_of(data=data.fingerprint(), part=part, n=n, extractor=extractor.name)
    path = Path(cache).expanduser() / f"features-{key}.safetensors"

    def computed() -> Cached:
        maps = joined([extractor(images) for images in _chunks(batches, n)])
        tensors = {name: tensor for name, tensor in maps._asdict().items() if tensor is not None}
        return Cached(tensors, {"extractor": extractor.name, "data": data.name, "part": part, "n": n})

    tensors = cached(path, key, computed).tensors
    return FeatureMaps(tensors["features"], tensors.get("logits"))


def _chunks(batches: Sequence[Batch], n: int) -> Iterator[Tensor]:
    """The first n images of the batches, a chunk at a time."""
    for batch in batches:
        count = min(n, len(batch.data))
        # index_select decodes a set of files: in chunks, its images need little memory.
        for index in torch.arange(count).split(_CHUNK) if count else ():
            yield batch.data.index_select(0, index)
        n -= count
