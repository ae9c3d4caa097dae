"""What the hardware is good at."""

import torch

ALL_THREADS = torch.get_num_threads()
"""Of this process as it started: an earlier job of a multirun may have lowered the present number."""


def fast_bf16(accelerator: str) -> bool:
    """Whether bfloat16 matrix products are faster than float32 there: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
