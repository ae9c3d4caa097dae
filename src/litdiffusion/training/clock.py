"""Wall time of a run by section."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Sums wall seconds by section; time in nested sections counts only for the innermost one.

    Shares are relative to the time between `start` and `stop` (or now). Before `start` every share is 0.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = self._begin = self._end = 0.0

    def start(self) -> None:
        """Starts or restarts the clock: shares count from here."""
        self.seconds.clear()
        self._begin, self._end = time.perf_counter(), 0.0
        self._since = self._begin

    def stop(self) -> None:
        self._end = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds from `start` to `stop` (or now); 0 before `start`."""
        if not self._begin:
            return 0.0
        return max((self._end or time.perf_counter()) - self._begin, 1e-9)

    def share(self, *sections: str) -> float:
        """Share of the elapsed time that the sections took together, in [0, 1]."""
        return sum(self.seconds[name] for name in sections) / self.elapsed if self._begin else 0.0

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Adds the block's time to the section, without the time of sections inside the block."""
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
        """Closes the innermost section, if one is open."""
        self._charge_open_section()
        if self._open:
            self._open.pop()

    def _charge_open_section(self) -> None:
        """Adds the time since the last change to the innermost open section."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Budget:
    """Limits a repeated job to a share of the run's time.

    Args:
        clock: clock of the run.
        section: section of the job on that clock.
        max_share: largest share, in (0, 1]; None: no limit.
        ahead: how many jobs at the last cost must fit into the share before the next one is allowed; counts that one.
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
        """Whether one more job stays within the share; the first job is always allowed."""
        if self.max_share is None or not self.done:
            return True
        cost = self.seconds + self.ahead * self.clock.last[self.section]
        return cost <= self.max_share * self.clock.elapsed

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Measures the block as one job."""
        with self.clock(self.section):
            yield
        self.done += 1
