"""A checksum of tensors: equal names and values give the same digest on every machine."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 (64 hex digits) of names, dtypes, shapes and values; independent of order and memory layout."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        # contiguous() puts channels_last weights into the order of their indices.
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
