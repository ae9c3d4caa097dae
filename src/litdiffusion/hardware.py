"""What the hardware is good at."""

import torch


def fast_bf16() -> bool:
    """Whether bfloat16 matrix products are faster than float32 here: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
