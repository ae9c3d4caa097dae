"""One start of ``python train.py ...`` in forked processes, which need not import torch again."""

import atexit
import contextlib
import logging
import multiprocessing.util
import os
import runpy
import select
import signal
import socket
import sys
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .features import LIMIT_S

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "train.py"
TOGETHER = b"All distributed processes registered"
"""What Lightning prints when all processes have come; from then on each must notice by itself that another one died."""
LAUNCHER_S = 3.0
Prepare = Callable[[int], contextlib.AbstractContextManager]


@dataclass(frozen=True)
class Ended:
    """How a process of an attempt ended.

    Args:
        status: exit status, or minus the signal that killed it.
        out: what it printed on stdout.
        err: on stderr.
        seconds: how long it ran.
        killed_by: "limit" if it ran too long, "launcher" if it waited for a process that never came, else "".
    """

    status: int
    out: str
    err: str
    seconds: float
    killed_by: str = ""


class Child:
    """A forked process of the command."""

    def __init__(self, run: Callable[[], int]):
        (self.out, out_end), (self.err, err_end) = os.pipe(), os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.begin, self.ended, self.killed_by = time.monotonic(), None, ""
        self.pid = os.fork()
        if self.pid == 0:
            _become(run, out_end, err_end)
        self.handle = os.pidfd_open(self.pid)
        self.texts = {self.out: bytearray(), self.err: bytearray()}
        for end in (out_end, err_end):
            os.close(end)
        for end in self.texts:
            os.set_blocking(end, False)

    def kill(self, by: str) -> None:
        """Kills the process, see `Ended.killed_by`."""
        self.killed_by = by
        signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def poll(self, wait: float) -> Ended | None:
        """Reads for up to ``wait`` seconds what the process prints; how it ended, or None while it runs."""
        if self.ended is None:
            select.select([*self.texts, self.handle], [], [], wait)
            self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._read()
                text = (bytes(self.texts[end]).decode(errors="replace") for end in (self.out, self.err))
                seconds = time.monotonic() - self.begin
                self.ended = Ended(os.waitstatus_to_exitcode(status), *text, seconds, self.killed_by)
                for end in (self.out, self.err, self.handle):
                    os.close(end)
        return self.ended

    def _read(self) -> None:
        for end, text in self.texts.items():
            # Workers of a killed process may hold the pipe open, so its end is not waited for.
            with contextlib.suppress(BlockingIOError):
                while block := os.read(end, 1 << 16):
                    text += block


def start_and_wait(
    words: list[str],
    folder: Path,
    processes: int = 1,
    prepare: Prepare = contextlib.nullcontext,
) -> list[Ended]:
    """Runs the command in ``folder`` until all of its processes have ended; how each of them ended.

    Args:
        words: the command's overrides.
        folder: the working directory.
        processes: how many processes train together, as ``torchrun`` would start them.
        prepare: the context of the process of a rank, inside which the command runs.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report loader workers of other runs
    port, begin = _free_port(), time.monotonic()
    children = [Child(lambda k=k: _run(k, processes, port, words, folder, prepare)) for k in range(processes)]
    while running := [child for child in children if child.ended is None]:
        for child in running:
            child.poll(0.2 / len(running))
        if by := _killer(children, begin):
            for child in running:
                if child.ended is None:
                    child.kill(by)
    return [child.ended for child in children]


def _killer(children: list[Child], begin: float) -> str:
    """Who kills the rest of an attempt now: "limit", "launcher" or nobody."""
    now = time.monotonic()
    if now - begin > LIMIT_S:
        return "limit"
    met = any(TOGETHER in text for child in children for text in child.texts.values())
    lost = [child for child in children if child.ended is not None and child.ended.status != 0]
    # A process waits half an hour for others to come; launchers such as torchrun kill it when one of them has died.
    waits = lost and not met and now - (lost[0].begin + lost[0].ended.seconds) > LAUNCHER_S
    return "launcher" if waits else ""


def _become(run: Callable[[], int], out: int, err: int) -> None:
    """Makes this forked process the one that runs the command, and ends it."""
    try:
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, 256)
        sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        _log_to_stderr()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # because a shell's background job ignores it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os._exit(run())
    finally:
        os._exit(99)


def _log_to_stderr() -> None:
    """Points handlers that were made when Lightning was imported at this process's stderr."""
    for name in (None, *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:
                handler.stream = sys.stderr  # setStream would first write to the old one


def _run(rank: int, processes: int, port: int, words: list[str], folder: Path, prepare: Prepare) -> int:
    _leave_to_parent()
    os.chdir(folder)
    if processes > 1:
        _join(rank, processes, port)
    sys.argv, sys.path[0] = [str(TRAIN), *words], str(ROOT)
    with prepare(rank):
        status = _exit_status()
    atexit._run_exitfuncs()  # as Python does; it ends the workers of a loader
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _leave_to_parent() -> None:
    """Forgets what the parent process would clean up at its end, such as its temporary folders."""
    atexit._clear()
    atexit.register(multiprocessing.util._exit_function)
    for inherited in [*weakref.finalize._registry]:
        inherited.atexit = False


def _exit_status() -> int:
    """Runs the command; returns the exit status that Python would have."""
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        traceback.print_exc()
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _join(rank: int, processes: int, port: int) -> None:
    """Sets what ``torchrun`` tells a process."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    told = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "lottery"}
    os.environ.update({name: str(value) for name, value in told.items()})
    rank_zero_only.rank = rank  # Lightning read it from the environment when it was imported


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
