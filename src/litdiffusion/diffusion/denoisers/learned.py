"""The learned denoiser: a net, a noise schedule and a parameterization."""

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.gaussian import scaled
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.diffusion.parameterizations import Parameterization
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


class Denoiser(nn.Module):
    """``(x_t, level, class_label) -> Prediction(x_0, eps)``: the learned E[x_0 | x_t] and E[eps | x_t].

    The net is any module ``net(x, noise_label, class_label) -> out``, out shaped like x, noise_label (B,). The denoiser
    scales the net's input and output by the factors of the parameterization. It casts x to the dtype of the net's
    weights, and the output to the dtype of x_t. The noise label is at least float32; a net in half precision must cast
    it. With ``learned_variance`` the output has twice the channels (dimension 1), and its second half v gives the
    prediction's ``variance_fraction = (v + 1) / 2``.

    Raises:
        UserError: if the parameterization cannot be decoded on this schedule, or ``learned_variance`` has no chain.

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
        self._scales_input = not _is_one(self._input_scale(probe))
        self._scales_output = not _is_one(parameterization.output_scale(probe))

    def output(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Tensor:
        """The output that the loss compares with the target, (B, ...), in x_t's dtype even under autocast."""
        return self.outputs(x_t, level, class_label)[0]

    def outputs(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The output (see `output`), and the variance fraction, None without a learned variance."""
        net_dtype = next((weight.dtype for weight in self.net.parameters()), x_t.dtype)
        # At least float32, because bfloat16 would round the noise labels 1..1000 to half as many values.
        noise_label_dtype = torch.promote_types(net_dtype, torch.float32)
        noise_label = _on(x_t.device, self.schedule.noise_label(level)).to(noise_label_dtype)
        noise_label = noise_label.reshape(-1).expand(len(x_t))
        x = scaled(self._input_scale(level), x_t) if self._scales_input else x_t
        out = self.net(x.to(net_dtype), noise_label, class_label).to(x_t.dtype)
        out, raw = self._halves(out, x_t) if self.learned_variance else (out, None)
        if self._scales_output:
            out = scaled(self.parameterization.output_scale(level), out)
        return out, None if raw is None else (raw + 1) / 2

    def _input_scale(self, level: Level) -> Tensor:
        return self.parameterization.input_scale(level, self.schedule.sigma_data or 1.0)

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


def _on(device: torch.device, value: Tensor) -> Tensor:
    """The value on the device; a number of the CPU is filled in there, because a copy would make the host wait."""
    if value.ndim == 0 and value.device.type == "cpu" != device.type:
        return torch.full((), value.item(), dtype=value.dtype, device=device)
    return value.to(device)


def _is_one(scale: Tensor) -> bool:
    return bool(((scale - 1).abs() < 1e-12).all())
