"""Where the wall time of a run goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Sums wall seconds by section; where sections nest, a moment belongs to the innermost alone.

    Shares are of the time between `start` and `stop` (or now). Before `start` nothing has a share.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = self._begin = self._end = 0.0

    def start(self) -> None:
        """The run begins (again): shares count from here."""
        self.seconds.clear()
        self._begin, self._end = time.perf_counter(), 0.0
        self._since = self._begin

    def stop(self) -> None:
        self._end = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since `start`; it stands still after `stop`."""
        if not self._begin:
            return 0.0
        return max((self._end or time.perf_counter()) - self._begin, 1e-9)

    def share(self, *sections: str) -> float:
        """The part of the elapsed time that the sections took together, in [0, 1]."""
        return sum(self.seconds[name] for name in sections) / self.elapsed if self._begin else 0.0

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """The block's time is the section's, but for what sections inside it take."""
        self.enter(section)
        began = self.seconds[section]
        try:
            yield
        finally:
            self.leave()
            self.last[section] = self.seconds[section] - began

    def enter(self, section: str) -> None:
        self._charge_open_section()
        self._open.append(section)

    def leave(self) -> None:
        """Closes the innermost section; without an open one it does nothing."""
        self._charge_open_section()
        if self._open:
            self._open.pop()

    def _charge_open_section(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Budget:
    """Keeps a job that returns within a share of the run's time.

    Args:
        clock: of the run.
        section: of the job on that clock.
        max_share: in (0, 1]; None: no limit.
        ahead: how many times the last cost is set aside before another one is allowed, itself among them.
    """

    def __init__(self, clock: Clock, section: str, max_share: float | None, ahead: int = 1):
        self.clock, self.section, self.max_share, self.ahead = clock, section, max_share, ahead
        self.done = 0

    @property
    def seconds(self) -> float:
        return self.clock.seconds[self.section]

    @property
    def share(self) -> float:
        return self.clock.share(self.section)

    def allows(self) -> bool:
        """Whether one more would stay within the share; the first always does."""
        if self.max_share is None or not self.done:
            return True
        cost = self.seconds + self.ahead * self.clock.last[self.section]
        return cost <= self.max_share * self.clock.elapsed

    @contextmanager
    def spend(self) -> Iterator[None]:
        """One job."""
        with self.clock(self.section):
            yield
        self.done += 1
