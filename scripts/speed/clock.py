"""Time of work on a device, and how much arithmetic the device could have done in it."""

import time
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Stopwatch:
    """Seconds since `start`: a GPU's own time between two events, or CPU time of this process on a CPU."""

    def __init__(self, device: torch.device):
        self.device = device

    def start(self) -> None:
        self._begin = self._now()

    def seconds(self) -> float:
        """Waits for the GPU; so it is to be called once, at the end."""
        end = self._now()
        if self.device.type != "cuda":
            return end - self._begin
        torch.cuda.synchronize(self.device)
        return self._begin.elapsed_time(end) / 1e3

    def _now(self):
        if self.device.type != "cuda":
            return time.process_time()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def flops(net: nn.Module, x: Tensor, noise_label: Tensor, class_label: Tensor | None) -> int:
    """Floating-point operations of the matrix products and convolutions of a forward and a backward pass."""
    with FlopCounterMode(display=False) as counter:
        net(x, noise_label, class_label).float().square().mean().backward()
    net.zero_grad()
    return counter.get_total_flops()


def ceiling(device: torch.device, dtype: torch.dtype, size: int, repeats: int = 10) -> float:
    """Floating-point operations per second of the product of two matrices (size, size): the median of five rounds."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    rates = []
    for _ in range(6):
        watch = Stopwatch(device)
        watch.start()
        for _ in range(repeats):
            a @ b
        rates.append(repeats * 2 * size**3 / watch.seconds())
    return median(rates[1:])
