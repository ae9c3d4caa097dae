"""SIGTERM and Ctrl-C: never in the middle of a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A run was told to stop; no ``Exception``, so that nobody takes it for an error that can be handled."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """Turns the two signals into `Stopped`: at once, or at the end of the block that holds them.

    A second signal does not wait. Processes that work together stop together: with ``shared`` a signal always waits for
    the end of a block, where all of them ask each other.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.shared = False
        self._holding = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block the signals are ours, after it those of whoever had them; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.signum = None
        self.install()
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def install(self) -> None:
        """Takes the signals, also from Lightning, whose answer to SIGTERM talks to other processes at any moment."""
        for signum in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(signum) != signal.SIG_IGN:  # a shell's background job is not to hear Ctrl-C
                signal.signal(signum, self._heard)

    @contextmanager
    def held(self, agree: Callable[[bool], bool] = bool) -> Iterator[None]:
        """No `Stopped` inside the block; at its end, where a signal came: ``agree`` joins what all processes heard."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if agree(self.signum is not None):
            raise Stopped(self.signum or signal.SIGTERM)

    def _heard(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or not (self._holding or self.shared):
            raise Stopped(signum)
