"""Checks of values on a GPU that the host reads one step late, so that the GPU never waits for the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Check(NamedTuple):
    """A condition on its way to the host, the event after which it is there, and what follows if it is true."""

    bad: Tensor
    event: torch.cuda.Event | None
    act: Callable[[], Any]


class LateChecks:
    """Acts on conditions that are computed on a device: at once on the CPU, one step late on a GPU.

    Work is sent to a GPU ahead of time. A host that reads a value at once waits until the GPU has come so far, and the
    GPU then waits for more work. A step later the value is already there, while the GPU has the next step to do.
    """

    def __init__(self) -> None:
        self._new: list[Check] = []
        self._due: list[Check] = []

    def check(self, bad: Tensor, act: Callable[[], Any]) -> None:
        """Calls ``act`` if ``bad`` (0-dimensional, boolean) is true: now, or at the end of the next step."""
        if is_read_at_once(bad.device):
            if bad:
                act()
            return
        on_host = bad.to("cpu", non_blocking=True)  # torch gives it pinned memory, without which the copy would wait
        event = torch.cuda.Event() if bad.is_cuda else None
        if event is not None:
            event.record()
        self._new.append(Check(on_host, event, act))

    def end_step(self) -> None:
        """Acts on the checks of the step before. To be called once a step, when its backward pass has been sent."""
        due, self._due, self._new = self._due, self._new, []
        _act(due)

    def flush(self) -> None:
        """Acts on all checks, and waits for them: before anything is written or measured."""
        due, self._due, self._new = [*self._due, *self._new], [], []
        _act(due)


def is_read_at_once(device: torch.device) -> bool:
    """Whether reading a value of this device makes nothing wait."""
    return device.type != "cuda"


def _act(checks: list[Check]) -> None:
    for bad, event, act in checks:
        if event is not None:
            event.synchronize()
        if bad:
            act()
