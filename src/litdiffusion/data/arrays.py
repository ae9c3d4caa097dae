"""Items of any numeric type in data space: vectors are read as floats, images as floats or bytes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from litdiffusion.errors import UserError


def bytes_to_floats(x: Tensor) -> Tensor:
    """Images (N, C, H, W) of bytes become ``x / 127.5 - 1`` in [-1, 1], in the default dtype; floats are unchanged."""
    return (x.float() / 127.5 - 1).to(torch.get_default_dtype()) if x.dtype == torch.uint8 else x


def as_tensor(x: Any) -> Tensor:
    """A tensor of the same numbers: a tensor as it is, an array of NumPy also of a type that torch does not have.

    Raises:
        UserError: text, dates, objects, complex numbers, or no array at all.
    """
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise UserError(f"items must be numbers, but the data hold {array.dtype}; convert them to floats")
        x = torch.from_numpy(np.require(array.astype(_torch_type(array), copy=False), requirements="W"))
    if x.is_complex():
        raise UserError(f"items must be real numbers, but the data hold {x.dtype}; split them into two coordinates")
    return x


def as_items(x: Any) -> Tensor:
    """Items (N, *shape) as they are kept: vectors (N, d) in the default dtype, images in it or as bytes.

    Vectors may be of any numeric type; a byte of a vector is the number from 0 to 255.

    Raises:
        UserError: no numbers, items without a coordinate, or images of integers that are not bytes.
    """
    x = as_tensor(x)
    if x.ndim < 2:
        raise UserError(
            f"a batch must be of shape (B, d) or (B, C, H, W), but the data give {tuple(x.shape)}; give numbers of one "
            f"dimension the shape (B, 1)"
        )
    if x.ndim > 2 and x.dtype == torch.uint8:
        return x
    if x.ndim > 2 and not x.is_floating_point():
        raise UserError(
            f"images must be floats or bytes (uint8), but the data give {str(x.dtype).removeprefix('torch.')}; convert "
            f"them to floats, e.g. in [-1, 1], or to uint8 if they are from 0 to 255"
        )
    return x.to(torch.get_default_dtype())


def as_class_labels(x: Any) -> Any:
    """Class labels of NumPy as a tensor (N,); anything else as it is, which the model checks where it needs them."""
    return as_tensor(x) if isinstance(x, np.ndarray) and x.dtype.kind in "biu" else x


def as_conditions(x: Any) -> Tensor | None:
    """The conditions (N, D) of items, as floats; None without any.

    Raises:
        UserError: no numbers, or not D of them for each item.
    """
    if x is None:
        return None
    x = as_tensor(x)
    if x.ndim != 2:
        raise UserError(f"conditions must be (B, D), D numbers for each item, but the data give {tuple(x.shape)}")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _torch_type(array: np.ndarray) -> np.dtype:
    """The type of these numbers, or a larger one, that torch computes with."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return np.dtype(np.int64 if array.dtype.itemsize < 8 or array.max(initial=0) < 2**63 else np.float64)
    return np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
