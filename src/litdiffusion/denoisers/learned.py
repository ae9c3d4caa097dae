"""The learned denoiser: a net, a schedule and the meaning of the net's output."""

import torch
from torch import Tensor, nn

from litdiffusion.parameterizations import Parameterization
from litdiffusion.schedules import NoiseSchedule
from litdiffusion.types import Level, Prediction


class Denoiser(nn.Module):
    """``(x_t, level, cond) -> Prediction(x_0, eps)``, the expectations of both given x_t, as the net has learned them.

    The net is any module ``net(x, label, cond) -> tensor shaped like x`` with ``label`` (B,), and knows no diffusion.

    Raises:
        UserError: where the parameterization cannot be decoded on this schedule.
    """

    def __init__(self, net: nn.Module, schedule: NoiseSchedule, parameterization: Parameterization):
        super().__init__()
        parameterization.check(schedule)
        self.net = net
        self.schedule = schedule
        self.parameterization = parameterization

    def output(self, x_t: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """The net's raw output, (B, ...) in x_t's dtype even where the net ran under autocast."""
        # float32 whatever x_t is: in bfloat16 the labels 1..1000 would collapse to half as many.
        label = self.schedule.label(level).to(x_t.device, torch.float32).reshape(-1).expand(len(x_t))
        return self.net(x_t, label, cond).to(x_t.dtype)

    def forward(self, x_t: Tensor, level: Level, cond: Tensor | None = None) -> Prediction:
        return self.parameterization.decode(self.output(x_t, level, cond), x_t, level)
