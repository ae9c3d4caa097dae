"""The learned denoiser: a net, a schedule and the meaning of the net's output."""

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.gaussian import scaled
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.parameterizations import Parameterization
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


class Denoiser(nn.Module):
    """``(x_t, level, class_label) -> Prediction(x_0, eps)``: the learned expectations of both, given x_t.

    The net is any module ``net(x, noise_label, class_label) -> out``, out shaped like x, noise_label (B,). It knows no
    diffusion: its input and output are scaled here, as the parameterization says. x is cast to the dtype of the net's
    weights, the output back to that of x_t. The noise label is at least float32; a net in half precision casts it
    itself. With ``learned_variance`` the output has twice the channels (dimension 1), and its second half v gives
    ``variance_fraction = (v + 1) / 2`` of `Prediction`.

    Raises:
        UserError: where the parameterization cannot be decoded on this schedule, or variances are to be learned where
            there is no chain.

    Source: learned variances: Nichol, Dhariwal, 2021, arXiv 2102.09672, section 3.1.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: NoiseSchedule,
        parameterization: Parameterization,
        learned_variance: bool = False,
    ):
        super().__init__()
        parameterization.check(schedule)
        if learned_variance and (schedule.steps or 0) < 2:
            raise UserError(
                f"learned_variance needs the steps of a discrete chain, {type(schedule).__name__} has none; take "
                f"schedule=linear or another chain, or learned_variance=false"
            )
        self.net = net
        self.schedule = schedule
        self.parameterization = parameterization
        self.learned_variance = learned_variance
        probe = schedule.probe()
        self._scales_input = not _is_one(parameterization.input_scale(probe))
        self._scales_output = not _is_one(parameterization.output_scale(probe))

    def output(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Tensor:
        """What is compared with the target, (B, ...) in x_t's dtype even where the net ran under autocast."""
        return self.outputs(x_t, level, class_label)[0]

    def outputs(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The output and, with learned variances, the variance fraction."""
        weights = next((weight.dtype for weight in self.net.parameters()), x_t.dtype)
        # At least float32: in bfloat16 the labels 1..1000 would collapse to half as many.
        precise = torch.promote_types(weights, torch.float32)
        noise_label = self.schedule.noise_label(level).to(x_t.device, precise).reshape(-1).expand(len(x_t))
        x = scaled(self.parameterization.input_scale(level), x_t) if self._scales_input else x_t
        out = self.net(x.to(weights), noise_label, class_label).to(x_t.dtype)
        out, raw = self._halves(out, x_t) if self.learned_variance else (out, None)
        if self._scales_output:
            out = scaled(self.parameterization.output_scale(level), out)
        return out, None if raw is None else (raw + 1) / 2

    def _halves(self, out: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        if out.shape[1] != 2 * x_t.shape[1]:
            raise UserError(
                f"learned_variance needs a net with {2 * x_t.shape[1]} output channels, this one has {out.shape[1]}; "
                f"give it out_channels: ${{derived.out_channels}}, or take learned_variance=false"
            )
        out, raw = out.chunk(2, dim=1)
        return out, raw

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        out, variance_fraction = self.outputs(x_t, level, class_label)
        return self.parameterization.decode(out, x_t, level)._replace(variance_fraction=variance_fraction)


def _is_one(scale: Tensor) -> bool:
    return bool(((scale - 1).abs() < 1e-12).all())
