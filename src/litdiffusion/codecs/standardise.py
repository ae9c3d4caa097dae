"""The codec of diffusion on standardised data."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from litdiffusion.codecs.base import Range
from litdiffusion.codecs.identity import Identity
from litdiffusion.errors import UserError

LOW, HIGH = 0.3, 3.0
"""Deviations, in units of the one that a process is made for, that may stay as they are."""
SHOWN = 8
"""Largest number of coordinates whose constants are printed."""


class Standardise(Identity):
    """Model space is ``(x - mean) / std`` in each coordinate of vectors, or each channel of images.

    Samples, pictures, metrics and likelihoods are those of the data, in their own units: `decode` undoes it. A run
    measures the constants once, on its training items; every checkpoint and export holds them in its config.

    Args:
        mean, std: of each coordinate or channel (C,), or one for all (1,); a ``std`` of 0 counts as 1. None: the data
            are left alone.
        always: false: only vectors are standardised, and only if they are far from mean 0 and deviation 1: in some
            coordinate ``|mean| > std``, or ``std`` outside [0.3, 3].

    Raises:
        UserError: constants of unequal length, or that are not finite.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, always: bool = True):
        super().__init__()
        self.mean, self.std = list(mean or ()), [value or 1.0 for value in std or ()]
        if len(self.mean) != len(self.std):
            raise UserError(f"codec.mean has {len(self.mean)} values and codec.std {len(self.std)}; give as many")
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise UserError(f"codec.mean must be finite and codec.std positive, got {self.mean} and {self.std}")
        self.always = always
        self._kept: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    @property
    def is_far(self) -> bool:
        """Whether some coordinate has ``|mean| > std``, or a ``std`` outside [0.3, 3]."""
        pairs = zip(self.mean, self.std, strict=True)
        return any(abs(mean) > std or not LOW <= std <= HIGH for mean, std in pairs)

    def standardises(self, dims: int) -> bool:
        """Whether items of so many dimensions are standardised: 1 for vectors, 3 for images."""
        return bool(self.mean) and (self.always or (dims == 1 and self.is_far))

    def encode(self, data: Tensor) -> Tensor:
        if not self.standardises(data.ndim - 1):
            return data
        mean, std = self._constants(data)
        return (data - mean) / std

    def decode(self, latent: Tensor) -> Tensor:
        if not self.standardises(latent.ndim - 1):
            return latent
        mean, std = self._constants(latent)
        return mean + std * latent

    def latent_law(self, law: Any) -> Any:
        standardised = law is not None and self.standardises(1)
        return law.standardised(torch.tensor(self.mean), torch.tensor(self.std)) if standardised else law

    def latent_range(self, value_range: Range | None, shape: Sequence[int]) -> Range | tuple[Tensor, Tensor] | None:
        if value_range is None or not self.standardises(len(shape)):
            return value_range
        low, high = (self.encode(torch.full((1, *shape), end)) for end in value_range)
        return low, high

    def summary(self, shape: Sequence[int]) -> str:
        if not self.standardises(len(shape)):
            return ""
        pairs = [f"{mean:.4g} ± {std:.4g}" for mean, std in zip(self.mean, self.std, strict=True)]
        listed = ", ".join(pairs[:SHOWN]) + (f", ... ({len(pairs)})" if len(pairs) > SHOWN else "")
        return f"standardised for training (mean ± deviation): {listed}; results are in the data's units"

    def units(self, item: Tensor) -> Tensor:
        return self._constants(item)[1].expand_as(item) if self.standardises(item.ndim - 1) else super().units(item)

    def _constants(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``mean`` and ``std`` (1, C, 1, ...), in the dtype of x but at least float32, on its device.

        They are no buffers, which a run in half precision would round.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        key = (dtype, x.device, x.ndim)
        if key not in self._kept:
            if len(self.mean) not in (1, x.shape[1]):
                raise UserError(
                    f"codec.mean has {len(self.mean)} values, but items have {x.shape[1]} coordinates or channels; "
                    f"leave codec.mean and codec.std to the run, or take codec=identity"
                )
            shape = (1, -1, *(1,) * (x.ndim - 2))
            values = (torch.tensor(constants, dtype=torch.float64).view(shape) for constants in (self.mean, self.std))
            self._kept[key] = tuple(value.to(dtype).to(x.device) for value in values)
        return self._kept[key]
