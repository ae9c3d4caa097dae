"""Settings that depend on the hardware: precision, threads, memory layout."""

from collections.abc import Sequence

import torch
from torch import nn

from litdiffusion.training.recomputing import with_gradient_checkpointing

ALL_THREADS = torch.get_num_threads()
"""Threads of this process at its start: an earlier job of a multirun may have lowered the current number."""


def fast_bf16(accelerator: str) -> bool:
    """Whether bfloat16 matrix products are faster than float32: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def precision_for(setting: str | int, accelerator: str, shape: Sequence[int]) -> tuple[str | int, str]:
    """The Trainer's precision, and why "auto" does not train images (C, H, W) in bf16-mixed ("" where it does)."""
    if setting != "auto":
        return setting, ""
    if len(shape) != 3:
        return "32-true", ""
    return ("bf16-mixed", "") if fast_bf16(accelerator) else ("32-true", "this machine has no fast bfloat16")


def use_threads(setting: str | int, shape: Sequence[int]) -> None:
    """Sets torch's CPU threads to ``setting``; "auto" is all threads for images (C, H, W) and 1 for vectors.

    A second thread makes a tiny net slower, on a busy machine several times.
    """
    torch.set_num_threads((ALL_THREADS if len(shape) == 3 else 1) if setting == "auto" else int(setting))


def numerics(device: torch.device, devices: int, precision: str | int) -> dict[str, str | int]:
    """What the bits of a training depend on beside its config, as this process uses it: name -> value.

    Equal numerics give equal bits on the CPU. Another value may change the order of sums, and so the last digits.
    """
    return {
        "threads": torch.get_num_threads(),
        "devices": devices,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(precision),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def channels_last_suits(net: nn.Module, accelerator: str) -> bool:
    """Whether ``channels_last``, the fast layout of convolutions, is the faster one for the whole net.

    On a CPU it slows down group and instance norms by more than the convolutions gain: the source's U-Net trains 137
    instead of 199 images/s with group norm in bfloat16, and 75 instead of 91 with instance norm in float32.
    """
    norms = (nn.GroupNorm, nn.InstanceNorm2d)
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    return not on_cpu or not any(isinstance(part, norms) for part in net.modules())


def prepared(
    net: nn.Module, compile: bool | str, accelerator: str = "auto", gradient_checkpointing: bool = False
) -> nn.Module:
    """The net with 4-D weights in the layout that suits it, see `channels_last_suits`; compiled if ``compile``.

    ``compile`` may also be a mode of ``torch.compile``, such as reduce-overhead, which replays CUDA graphs.
    ``gradient_checkpointing`` saves memory, see `with_gradient_checkpointing`. All is done in place, so the names in
    checkpoints do not change.
    """
    layout = torch.channels_last if channels_last_suits(net, accelerator) else torch.contiguous_format
    for weight in net.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=layout)
    if gradient_checkpointing:
        net = with_gradient_checkpointing(net)
    if compile:
        net.compile(mode=None if compile is True else compile)
    return net
