"""Strikes the blows of a draw at their moments, which are counted in the undisturbed run."""

import os
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from . import faults, points
from .draws import Blow
from .outcome import Snapshot


@dataclass(frozen=True)
class Reference:
    """The undisturbed run: what is left of it, how often each process passed each point, how long it took."""

    left: Snapshot
    rows: list[dict[str, str]]
    passes: list[Counter]
    seconds: float


class Trigger:
    """Strikes the next blow when its moment comes; what it struck is noted in a file first."""

    def __init__(self, blows: list[Blow], reference: Reference, rank: int, hits: Path):
        self.blows, self.reference, self.rank, self.hits = list(blows), reference, rank, hits
        self.passed: Counter = Counter()
        self._wait_for_time()

    def __call__(self, point: str) -> None:
        self.passed[point] += 1
        while self.blows and self.blows[0].point == point and self.passed[point] > self._passes_before(self.blows[0]):
            self._strike()

    def _passes_before(self, blow: Blow) -> int:
        return int(blow.share * self.reference.passes[self.rank][blow.point])

    def _strike(self) -> None:
        blow = self.blows.pop(0)
        handle = os.open(self.hits, os.O_WRONLY | os.O_APPEND)
        os.write(handle, f"{blow}\n".encode())
        os.close(handle)
        self._wait_for_time()
        faults.strike(blow.fault, blow.amount)

    def _wait_for_time(self) -> None:
        if self.blows and self.blows[0].point == points.TIME:
            timer = threading.Timer(self.blows[0].share * self.reference.seconds, self._strike)
            timer.daemon = True
            timer.start()
