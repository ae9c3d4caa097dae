"""SIGTERM and Ctrl-C stop a run between two steps."""

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
    """A signal stopped the run; not an ``Exception``, so that no code handles it as an error."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts(L.Callback):
    """Turns SIGINT and SIGTERM into `Stopped`: between two batches, or at once if nothing is lost.

    While a batch is trained, shown and logged, a signal takes effect at the start of the next batch; a second signal
    takes effect at once. Validation and the work after training are interrupted at once, because a resumed run repeats
    them. Several processes stop together: they exchange the signal at the start of every batch, and nowhere else.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.shared = False
        self._deferring = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals inside the block, then restores the previous handlers; only in the main thread."""
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
        """Replaces Lightning's handler of SIGTERM, which communicates with other processes at any moment."""
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
            if signal.getsignal(signum) != signal.SIG_IGN:  # because a shell's background job ignores Ctrl-C
                signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or not (self._deferring or self.shared):
            raise Stopped(signum)
        print(
            f"{signal.Signals(signum).name}: stops after this step; send it again to stop at once",
            file=sys.stderr,
            flush=True,
        )
