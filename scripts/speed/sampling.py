"""Seconds of a network call in sampling, of the framework and of a hand-written loop of DDIM over the same net."""

from itertools import pairwise

import torch
from torch import Tensor

from litdiffusion.build import Experiment
from litdiffusion.diffusion.samplers import DDIM
from litdiffusion.pretrained.progress import noise_of_samples
from speed.cases import Length, experiment
from speed.clock import Stopwatch

STEPS = 25


def framework(length: Length) -> float:
    """Seconds per call of the framework: batches as ``scripts/sample.py`` draws them, noise of their own seeds."""
    built = experiment(length)
    device, batch = prepared(built), built.data.batch_size
    draws, classes = built.module.draws(DDIM(STEPS)), labels(built, device)

    def work(index: int) -> Tensor:
        with precision(built, device):
            return draws.batch(range(batch), noise_of_samples(range(index * batch, (index + 1) * batch)), classes).x

    return timed(work, device, length)


def loop(length: Length) -> float:
    """Seconds per call of a loop of ten lines, with the noise of torch's own generator on the device."""
    built = experiment(length)
    device, batch = prepared(built), built.data.batch_size
    net, schedule = built.module.ema.model.net, built.module.denoiser.schedule
    classes = labels(built, device)
    times = [level.t.item() * schedule.steps for level in schedule.grid(STEPS)[:-1]]
    levels = [(float(level.alpha), float(level.sigma)) for level in schedule.grid(STEPS)]
    limits = built.module._clip

    @torch.no_grad()
    def work(index: int) -> Tensor:
        x = torch.randn(batch, *built.module.shape, device=device)
        for t, ((alpha, sigma), (next_alpha, next_sigma)) in zip(times, pairwise(levels), strict=True):
            label = torch.full((batch,), t, device=device)
            with precision(built, device):
                eps = net(x, label, classes).float()
            x_0 = (x - sigma * eps) / alpha
            if limits is not None:
                x_0 = x_0.clamp(*limits)
                eps = (x - alpha * x_0) / sigma
            x = next_alpha * x_0 + next_sigma * eps
        return x

    return timed(work, device, length)


def prepared(built: Experiment) -> torch.device:
    device = built.trainer.strategy.root_device
    built.module.to(device).eval()
    built.module.guidance = 1.0  # the loop does not guide
    return device


def labels(built: Experiment, device: torch.device) -> Tensor | None:
    classes = built.module.num_classes
    return torch.arange(built.data.batch_size, device=device) % classes if classes else None


def precision(built: Experiment, device: torch.device):
    return torch.autocast(device.type, torch.bfloat16, enabled=built.trainer.precision == "bf16-mixed")


def timed(work, device: torch.device, length: Length) -> float:
    work(0)
    batches, watch = max(1, length.timed // STEPS), Stopwatch(device)
    watch.start()
    for index in range(batches):
        work(index)
    return watch.seconds() / (batches * STEPS)
