"""Seconds of a training step, of the framework and of hand-written loops over the same net and data."""

from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor, nn

from litdiffusion.build import Experiment
from litdiffusion.data import bytes_to_floats
from speed.cases import Length, experiment
from speed.clock import Stopwatch


class Clock(L.Callback):
    """Times the steps after the first ``before``, by the end of a step."""

    def __init__(self, length: Length):
        self.length = length

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step == self.length.before:
            self.watch = Stopwatch(pl_module.device)
            self.watch.start()
        if trainer.global_step == self.length.before + self.length.timed:
            self.seconds_per_step = self.watch.seconds() / self.length.timed


def framework(length: Length) -> float:
    """Seconds per step of the framework."""
    built, clock = experiment(length), Clock(length)
    built.trainer.callbacks.append(clock)
    built.trainer.fit(built.module, built.data)
    return clock.seconds_per_step


def loop(length: Length, full: bool) -> float:
    """Seconds per step of a hand-written loop; ``full`` adds clipping and the weight average.

    The data lie on the device.
    """
    built = experiment(length)
    device = built.trainer.strategy.root_device
    step, batch = hand_written_step(built, device, full), built.data.batch_size
    built.data.setup("fit")
    data, labels = built.data.train.data.to(device), built.data.train.class_label
    labels = None if labels is None or not built.module.num_classes else labels.to(device)
    watch = Stopwatch(device)
    for index in range(length.before + length.timed):
        if index == length.before:
            watch.start()
        rows = torch.randint(len(data), (batch,), device=device)
        x_0 = data[rows]
        x_0 = bytes_to_floats(x_0) if x_0.dtype == torch.uint8 else x_0
        step(x_0, None if labels is None else labels[rows])
    return watch.seconds() / length.timed


def hand_written_step(built: Experiment, device: torch.device, full: bool) -> Callable[[Tensor, Tensor | None], None]:
    """One step of plain DDPM training: epsilon prediction, mean squared error, fused AdamW."""
    net: nn.Module = built.module.denoiser.net.to(device)
    schedule, classes = built.module.denoiser.schedule, built.module.num_classes
    levels = schedule.at(torch.arange(schedule.steps + 1) / schedule.steps)
    alphas, sigmas = (values.float().to(device) for values in (levels.alpha, levels.sigma))
    parameters = list(net.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    average = [parameter.detach().clone() for parameter in parameters]
    bf16 = built.trainer.precision == "bf16-mixed"

    def step(x_0: Tensor, class_label: Tensor | None) -> None:
        index = torch.randint(1, schedule.steps + 1, (len(x_0),), device=device)
        shape = (-1, *[1] * (x_0.ndim - 1))
        eps = torch.randn_like(x_0)
        x_t = alphas[index].view(shape) * x_0 + sigmas[index].view(shape) * eps
        if class_label is not None:
            class_label = torch.where(torch.rand(len(x_0), device=device) < 0.1, classes, class_label)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = net(x_t, index.float(), class_label)
        loss = nn.functional.mse_loss(out.float(), eps)
        optimizer.zero_grad()
        loss.backward()
        if full:
            nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if full:
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1e-3)

    return step
