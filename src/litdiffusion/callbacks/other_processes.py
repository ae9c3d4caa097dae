"""A process that ends takes the others with it, with one message."""

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from types import FrameType
from typing import Any

import lightning as L

from litdiffusion.errors import ProcessLost

LIMIT = 20.0
"""Seconds after which the first process ends even if it cannot leave what it is doing, e.g. an exchange on a GPU."""


class OtherProcesses(L.Callback):
    """Raises `ProcessLost` in the first process as soon as one that Lightning has started for it ends with an error.

    Whatever the first process does then, also while it draws and exchanges nothing. Lightning's own observer would kill
    it within five seconds without a message. ``torchrun`` and Slurm watch the processes that they start themselves.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen] = []
        self._lost: str | None = None
        self._before: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        started = getattr(trainer.strategy.launcher, "procs", [])
        if threading.current_thread() is not threading.main_thread() or not started:
            return
        if all(isinstance(process, subprocess.Popen) for process in started):
            self._started, self._lost = started, None
            self._before = signal.signal(signal.SIGCHLD, self._raise)
            for rank, process in enumerate(started, start=1):
                threading.Thread(target=partial(self._wait, rank, process), daemon=True).start()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._started = []  # because the first error says more

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._started = []
        if signal.getsignal(signal.SIGCHLD) == self._raise:
            signal.signal(signal.SIGCHLD, self._before)

    def _wait(self, rank: int, process: subprocess.Popen) -> None:
        """Waits in a thread for a process to end, and sends the main thread the signal whose handler raises."""
        status = process.wait()
        if not (status and self._started):
            return
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        self._lost = f"process {rank} of this run ended {how}; its own output may say why"
        others = list(self._started)
        self._started.clear()  # Lightning's observer reads this list, and would kill this process before it can speak
        for other in others:
            other.kill()  # as Lightning does, because it may wait in an exchange for ever
        limit = threading.Timer(LIMIT, _end, [self._lost])
        limit.daemon = True
        limit.start()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGCHLD)

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        if callable(self._before):  # e.g. the handler of torch's loaders
            self._before(signum, frame)
        lost, self._lost = self._lost, None
        if lost is not None:
            raise ProcessLost(lost)


def _end(reason: str) -> None:
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(1)
