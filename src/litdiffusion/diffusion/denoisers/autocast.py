"""Lower precision: computes another denoiser under ``torch.autocast``."""

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import UserError

DTYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's name of a precision -> the dtype that matrix products and convolutions are computed in; None: float32."""


class AutocastDenoiser(DenoiserWrapper):
    """Computes another denoiser with products in ``dtype``; x_t, the sampler and the prediction stay in float32."""

    def __init__(self, denoiser: AnyDenoiser, dtype: torch.dtype):
        super().__init__(denoiser)
        self.dtype = dtype

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        with torch.autocast(x_t.device.type, self.dtype):
            return self.denoiser(x_t, level, class_label)


def in_precision(denoiser: AnyDenoiser, precision: str) -> AnyDenoiser:
    """The denoiser in a precision of `DTYPES`.

    Raises:
        UserError: another name.
    """
    if precision not in DTYPES:
        raise UserError(f"precision must be one of {', '.join(DTYPES)}, got {precision}")
    dtype = DTYPES[precision]
    return denoiser if dtype is None else AutocastDenoiser(denoiser, dtype)
