"""What the hardware is good at, and the settings that follow from it."""

from collections.abc import Sequence

import torch
from torch import nn

ALL_THREADS = torch.get_num_threads()
"""Threads of this process as it started: an earlier job of a multirun may have lowered the present number."""


def fast_bf16(accelerator: str) -> bool:
    """Whether bfloat16 matrix products are faster than float32 there: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def precision_for(setting: str | int, accelerator: str, shape: Sequence[int]) -> str | int:
    """The Trainer's precision: ``setting``, where "auto" is bf16-mixed for images (C, H, W) on fast hardware."""
    if setting != "auto":
        return setting
    return "bf16-mixed" if len(shape) == 3 and fast_bf16(accelerator) else "32-true"


def use_threads(setting: str | int, shape: Sequence[int]) -> None:
    """Sets torch's CPU threads to ``setting``, where "auto" is all for images (C, H, W) and 1 for vectors.

    A second thread costs a tiny net more than it gives, and several times its speed on a busy machine.
    """
    torch.set_num_threads((ALL_THREADS if len(shape) == 3 else 1) if setting == "auto" else int(setting))


def prepared(net: nn.Module, compile: bool) -> nn.Module:
    """The net with its 4-D weights in ``channels_last``, the fast layout of convolutions, and compiled if asked for.

    Both are done in place: the names in checkpoints stay as they are.
    """
    for weight in net.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    if compile:
        net.compile()
    return net
