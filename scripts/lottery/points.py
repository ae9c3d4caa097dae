"""Named moments of a run: functions that are watched from outside, in the process of the run alone.

A moment is the n-th time that a point is passed. ``line`` is a point too: every executed line of the package
while files are read or written. ``time`` is a share of the undisturbed run's wall time, which repeats only roughly.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import os
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

POINTS = {
    "compose": "litdiffusion.config.composition:complete_config",
    "build": "litdiffusion.commands.training:build",
    "lock": "filelock:BaseFileLock.acquire",
    "load": "litdiffusion.commands.resuming:newest_checkpoint",
    "cut rows": "litdiffusion.commands.training:keep_rows",
    "run.json": "litdiffusion.runs.record:write_atomically",
    "hparams": "lightning.pytorch.loggers.csv_logs:save_hparams_to_yaml",
    "row": "litdiffusion.runs.log:Rows.save",
    "new column": "litdiffusion.runs.log:write_rows",
    "batch start": "litdiffusion.callbacks.interrupts:Interrupts.on_train_batch_start",
    "next batch": "litdiffusion.data.loaders:EpochLoader.__iter__",
    "step": "litdiffusion.training.module:DiffusionModule.training_step",
    "clipping": "litdiffusion.training.module:DiffusionModule.configure_gradient_clipping",
    "optimizer": "litdiffusion.training.module:DiffusionModule.optimizer_step",
    "validation": "litdiffusion.training.module:DiffusionModule.validation_step",
    "validation end": "litdiffusion.callbacks.interrupts:Interrupts.on_validation_end",
    "checkpoint": "litdiffusion.training.checkpoint_io:SealedCheckpointIO.save_checkpoint",
    "torch.save": "torch:save",
    "seal": "litdiffusion.training.checkpoint_io:seal",
    "fsync": "os:fsync",
    "rename": "os:replace",
    "remove best": "litdiffusion.training.checkpoint_io:SealedCheckpointIO.remove_checkpoint",
    "picture": "litdiffusion.callbacks.pictures:write_picture",
    "last samples": "litdiffusion.callbacks.final_samples:FinalSamples.on_train_end",
    "train end": "litdiffusion.callbacks.last_checkpoint:LastCheckpoint.on_train_end",
    "check complete": "litdiffusion.commands.training:check_complete",
    "complete": "litdiffusion.commands.attempts:Attempt.complete",
    "report": "litdiffusion.commands.training:report",
}
LINE, TIME = "line", "time"
FILES = ("cut rows", "load", "run.json", "row", "new column", "checkpoint", "complete", "report")
"""Points inside which every line is a moment; everywhere that would take three times as long."""
Tick = Callable[[str], None]


@contextlib.contextmanager
def watched(tick: Tick, lines: bool) -> Iterator[None]:
    """Calls ``tick(point)`` before and after each call of a point, and ``tick("line")`` before lines if ``lines``.

    Only in this process: workers that it forks are not watched.
    """
    mine = os.getpid()

    def here(name: str) -> None:
        if os.getpid() == mine:
            tick(name)

    tracer = _tracer(functools.partial(here, LINE)) if lines else None
    with contextlib.ExitStack() as stack:
        for name, where in POINTS.items():
            stack.callback(_watch(where, functools.partial(here, name), tracer if name in FILES else None))
        yield


def counts_into(counter: Counter) -> Tick:
    """A tick that only counts."""
    return lambda name: counter.update([name])


def import_all() -> None:
    """Imports every module of the package, so that forked processes need not."""
    import litdiffusion

    for module in pkgutil.walk_packages(litdiffusion.__path__, "litdiffusion."):
        with contextlib.suppress(ImportError):  # what needs a package that is not installed
            importlib.import_module(module.name)
    for where in POINTS.values():
        importlib.import_module(where.partition(":")[0])
    gc.freeze()  # because every fork would look through, and so copy, all of the imported objects
    atexit.register(gc.unfreeze)  # or a library reports them as leaks


def _watch(where: str, tick: Callable[[], None], tracer: Callable | None) -> Callable[[], None]:
    """Watches one function; returns what undoes it."""
    module, _, path = where.partition(":")
    *outer, name = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    original = getattr(owner, name)
    setattr(owner, name, _each(original, tick) if name == "__iter__" else _around(original, tick, tracer))
    return lambda: setattr(owner, name, original)


def _around(original: Callable, tick: Callable[[], None], tracer: Callable | None) -> Callable:
    @functools.wraps(original)
    def watched_call(*args: Any, **kwargs: Any) -> Any:
        tick()
        outer = sys.gettrace()
        sys.settrace(tracer or outer)
        try:
            result = original(*args, **kwargs)
        finally:
            sys.settrace(outer)
        tick()
        return result

    return watched_call


def _each(original: Callable, tick: Callable[[], None]) -> Callable:
    @functools.wraps(original)
    def watched_iterator(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for item in original(*args, **kwargs):
            tick()
            yield item

    return watched_iterator


def _tracer(tick: Callable[[], None]) -> Callable:
    def in_line(frame: FrameType, event: str, argument: Any) -> Callable:
        if event == "line":
            tick()
        return in_line

    def in_call(frame: FrameType, event: str, argument: Any) -> Callable | None:
        return in_line if "/litdiffusion/" in frame.f_code.co_filename else None

    return in_call
