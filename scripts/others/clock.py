"""CPU and wall time per step, with the CPU time of the loaders' worker processes."""

import os
import time
from typing import NamedTuple

import psutil


class Pace(NamedTuple):
    """Seconds per step: CPU time of all processes, and wall time."""

    cpu: float
    wall: float


def cpu_seconds() -> float:
    """CPU time of this process and of its children, the living and the ended ones."""
    ended = os.times()  # in ticks of 10 ms; a step of a toy is shorter, so its own time is read elsewhere
    total = time.process_time() + ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:  # it has ended since it was listed
            continue
        total += times.user + times.system
    return total


class Clock:
    """Reads the time after step ``first`` and after step ``last``; `tick` is called after every step."""

    def __init__(self, first: int, last: int):
        if not 1 <= first < last:
            raise ValueError(f"the clock needs 1 <= first < last, got {first} and {last}")
        self.first, self.last, self.step = first, last, 0
        self.readings: list[tuple[float, float]] = []

    def tick(self) -> None:
        self.step += 1
        if self.step in (self.first, self.last):  # listing the children at every step would take longer than a step
            self.readings.append((cpu_seconds(), time.perf_counter()))

    @property
    def pace(self) -> Pace:
        (cpu, wall), (last_cpu, last_wall) = self.readings
        steps = self.last - self.first
        return Pace((last_cpu - cpu) / steps, (last_wall - wall) / steps)
