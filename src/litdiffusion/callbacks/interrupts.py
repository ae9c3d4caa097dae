"""SIGTERM and Ctrl-C: never in the middle of a step."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A run was told to stop; no ``Exception``, so that nobody takes it for an error that can be handled."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts(L.Callback):
    """Turns the two signals into `Stopped`: between two batches, or at once while nothing can be lost.

    While a batch is trained, drawn and logged, a signal waits for the start of the next one; a second signal does not
    wait. Validation and what follows training are interrupted at once: both are done again. Processes that work
    together stop together: they ask each other at every batch, and nowhere else.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.shared = False
        self._deferring = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block the signals are ours, after it those of whoever had them; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.signum, self._deferring = None, False
        self._install_handlers()
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals back from Lightning, whose answer to SIGTERM talks to other processes at any moment."""
        self._install_handlers()
        self.shared, self._deferring = trainer.world_size > 1, True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        stop = self.signum is not None
        if self.shared:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            raise Stopped(self.signum or signal.SIGTERM)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_deferring()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._deferring = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_deferring()

    def _stop_deferring(self) -> None:
        self._deferring = False
        if self.signum is not None and not self.shared:
            raise Stopped(self.signum)

    def _install_handlers(self) -> None:
        for signum in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(signum) != signal.SIG_IGN:  # a shell's background job is not to hear Ctrl-C
                signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or not (self._deferring or self.shared):
            raise Stopped(signum)
        print(f"{signal.Signals(signum).name}: stops after this step; again: at once", file=sys.stderr, flush=True)
