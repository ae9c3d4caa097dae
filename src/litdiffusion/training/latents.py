"""Latents of a data set's items, encoded once and kept in a file."""

import math
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from tqdm import tqdm

from litdiffusion.codecs import Codec
from litdiffusion.data.arrays import bytes_to_floats
from litdiffusion.data.base import DataModule
from litdiffusion.data.digest import tensor_digest
from litdiffusion.data.loaders import Sliceable
from litdiffusion.measure.cache import Cached, cached, key_of
from litdiffusion.training.length import batches_per_epoch, total_steps

CHUNKS = {"cpu": 64}
"""How many items are encoded at once, by kind of device: on a CPU 64 images of MNIST are 1.5 times as fast as 256."""
CHUNK = 512
LARGEST = 4 * 2**30
"""Largest number of bytes of latents that are kept in memory."""


def keep_latents(trainer: L.Trainer, codec: Codec, shape: tuple[int, ...]) -> bool:
    """Gives the training and validation items of ``trainer.datamodule`` their latents, of ``shape`` in float32 each.

    They are read from ``<codec.cache>/latents-<key>.safetensors``; without that file the first process encodes the
    items and writes it. The key changes with the items and with the codec. Returns False and changes nothing if
    ``codec.cache`` is None, if the data are not of this project, if their images are randomly changed, if the latents
    are larger than `LARGEST`, or if there is no file yet and the run is shorter than one pass over the items.
    """
    data = trainer.datamodule
    if codec.cache is None or not isinstance(data, DataModule):
        return False
    if reason := _why_not(data, shape):
        rank_zero_only(print)(f"latents are encoded at every step: {reason}")
        return False
    key = key_of(data=data.fingerprint(), codec=tensor_digest(codec.state_dict()), constants=codec.constants)
    path = Path(codec.cache).expanduser() / f"latents-{key}.safetensors"
    exists = trainer.strategy.broadcast(path.exists())
    if not exists and total_steps(trainer, data) * trainer.accumulate_grad_batches < batches_per_epoch(trainer, data):
        return False

    def computed() -> Cached:
        rank_zero_only(print)(f"encoding {data.name} once, into {path}")
        latents = {"train": encoded_items(codec, data.train.data), "val": encoded_items(codec, data.val.data)}
        return Cached(latents, {"data": data.name})

    if not trainer.is_global_zero:
        trainer.strategy.barrier("latents")
    found = cached(path, key, computed).tensors
    if trainer.is_global_zero:
        trainer.strategy.barrier("latents")
    data.train, data.val = data.train._replace(latent=found["train"]), data.val._replace(latent=found["val"])
    return True


def _why_not(data: DataModule, shape: tuple[int, ...]) -> str:
    """Why latents of these data cannot be kept; empty if they can."""
    if data.augment is not None:
        return "images are randomly changed (data.augment)"
    if not data.complete:
        return "the images are streamed"
    if 4 * math.prod(shape) * (len(data.train.data) + len(data.val.data)) > LARGEST:
        return f"together they would take more than {LARGEST // 2**30} GiB of memory"
    return ""


@torch.no_grad()
def encoded_items(codec: Codec, items: Sliceable) -> Tensor:
    """All ``items`` (N, *shape) in model space, on the CPU; encoded where the codec lies, in full precision."""
    device = next((weight.device for weight in codec.parameters()), torch.device("cpu"))
    parts = []
    with torch.autocast(device.type, enabled=False):
        chunks = torch.arange(len(items)).split(CHUNKS.get(device.type, CHUNK))
        for index in tqdm(chunks, desc="encoding", leave=False, disable=None):
            parts.append(codec.encode(bytes_to_floats(items.index_select(0, index)).to(device)).float().cpu())
    return torch.cat(parts)
