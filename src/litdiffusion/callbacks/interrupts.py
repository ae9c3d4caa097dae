"""SIGTERM, Ctrl-C and Slurm's requeue signal stop a run between two steps."""

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


class Requeued(Stopped):
    """Lightning has written its ``hpc_ckpt_N.ckpt`` and asked Slurm to put the job back into the queue."""


class Interrupts(L.Callback):
    """Turns SIGINT and SIGTERM into `Stopped`: between two batches, or at once if nothing is lost.

    While a batch is trained, shown and logged, a signal takes effect at the start of the next batch; a second signal
    takes effect at once. Validation and the work after training are interrupted at once, because a resumed run repeats
    them. Several processes stop together: they exchange the signal at the start of every batch, and nowhere else.

    A signal that Lightning handles itself, which is Slurm's requeue signal, also waits for the start of a batch. There
    Lightning's own handler saves and calls ``scontrol requeue``, in all processes together, and the run stops as
    `Requeued`. Lightning alone would save in the middle of whatever is done when the signal comes.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.shared = False
        self.requeue = False
        self._deferring, self._over = False, False
        self._requeue_handlers: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals inside the block, then restores the previous handlers; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.signum, self._deferring = None, False
        self.requeue, self._over, self._requeue_handlers = False, False, {}
        self._install_handlers()
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces Lightning's handler of SIGTERM, which communicates with other processes at any moment."""
        self._install_handlers()
        self._defer_requeue()
        self.shared, self._deferring = trainer.world_size > 1, True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._any(trainer, self.signum is not None or self.requeue):
            return
        if self._requeue_handlers and self._any(trainer, self.requeue):
            for signum, handler in self._requeue_handlers.items():
                handler(signum, None)
                raise Requeued(signum)
        raise Stopped(self.signum or signal.SIGTERM)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_deferring()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._deferring = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._over = True
        self._stop_deferring()

    def _any(self, trainer: L.Trainer, stop: bool) -> bool:
        """Whether ``stop`` holds in any of the processes."""
        return trainer.strategy.reduce_boolean_decision(stop, all=False) if self.shared else stop

    def _stop_deferring(self) -> None:
        self._deferring = False
        if self.signum is not None and not self.shared:
            raise Stopped(self.signum)

    def _install_handlers(self) -> None:
        for signum in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(signum) != signal.SIG_IGN:  # because a shell's background job ignores Ctrl-C
                signal.signal(signum, self._handle)

    def _defer_requeue(self) -> None:
        """Replaces the handlers that Lightning has installed beside that of SIGTERM."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in signal.valid_signals() - {*SIGNALS, signal.SIGKILL, signal.SIGSTOP}:
            handler = signal.getsignal(signum)
            if type(handler).__module__.startswith("lightning."):
                self._requeue_handlers[signum] = handler
                signal.signal(signum, self._note_requeue)

    def _note_requeue(self, signum: int, frame: FrameType | None) -> None:
        again, self.requeue = self.requeue, True
        if again:
            return
        what = "saves after this step (after a validation, if one runs), then Slurm requeues the job"
        if self._over:
            what = "the last step is done, so the job is not requeued; if Slurm ends it first, submit it again"
        print(f"{signal.Signals(signum).name}: {what}", file=sys.stderr, flush=True)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or not (self._deferring or self.shared):
            raise Stopped(signum)
        print(
            f"{signal.Signals(signum).name}: stops after this step; send it again to stop at once",
            file=sys.stderr,
            flush=True,
        )
