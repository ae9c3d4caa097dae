"""Features of real images, computed once for a data set and a feature net, and kept in a file."""

from collections.abc import Callable
from pathlib import Path

import torch

from litdiffusion.data.base import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.errors import UserError
from litdiffusion.measure.cache import Cached, cached, key_of
from litdiffusion.measure.features.extractor import Extractor, FeatureMaps, joined

PARTS: dict[str, Callable[[DataModule], Batch]] = {"train": lambda data: data.train, "test": lambda data: data.test()}
_CHUNK = 1_000


def reference_features(extractor: Extractor, data: DataModule, part: str, n: int, cache: str | Path) -> FeatureMaps:
    """Features of the first min(n, size) images of ``part``: "train", or "test" (see `DataModule.test`).

    The file is ``<cache>/features-<key>.safetensors``. The key changes with the data, the part, n and the extractor's
    name. A damaged or foreign file is named in a warning and replaced.

    Raises:
        UserError: for another part, n < 1, or a cache that cannot be written.
    """
    if part not in PARTS or n < 1:
        raise UserError(f"reference features need the part train or test, and n >= 1 images; got {part!r}, n={n}")
    data.load()
    rows = PARTS[part](data).data
    n = min(n, len(rows))
    key = key_of(data=data.fingerprint(), part=part, n=n, extractor=extractor.name)
    path = Path(cache).expanduser() / f"features-{key}.safetensors"

    def computed() -> Cached:
        # index_select decodes a set of files: in chunks, its images need little memory.
        maps = joined([extractor(rows.index_select(0, index)) for index in torch.arange(n).split(_CHUNK)])
        tensors = {name: tensor for name, tensor in maps._asdict().items() if tensor is not None}
        return Cached(tensors, {"extractor": extractor.name, "data": data.name, "part": part, "n": n})

    tensors = cached(path, key, computed).tensors
    return FeatureMaps(tensors["features"], tensors.get("logits"))
