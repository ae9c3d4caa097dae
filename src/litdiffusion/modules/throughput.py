"""How fast a run is, and what takes its time."""

from litdiffusion.clock import Clock

SECTIONS = ("step", "data", "logging", "validation", "drawing", "quality", "likelihood")
TRAINING = ("step", "data", "logging")


class Throughput:
    """``time/samples_per_second`` since the last row, over the time of training alone, and the share of each section.

    ``step`` is the module's own work, ``data`` the wait for the next batch with Lightning's loop around it. Shares are
    percentages of the whole time since training began.
    """

    def __init__(self, clock: Clock, step: int):
        self.clock = clock
        self._step, self._seconds = step, 0.0

    def row(self, step: int, samples_per_step: int) -> dict[str, float]:
        """The numbers at ``step``, for the log."""
        seconds = sum(self.clock.seconds[name] for name in TRAINING)
        steps, spent = step - self._step, max(seconds - self._seconds, 1e-9)
        self._step, self._seconds = step, seconds
        shares = {f"time/{name}_percent": 100 * self.clock.share(name) for name in SECTIONS if self.clock.seconds[name]}
        return {"time/samples_per_second": steps * samples_per_step / spent, **shares}
