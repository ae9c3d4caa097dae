"""What a disturbed run may print, and which error explains which fault."""

import re
from collections.abc import Collection

from . import faults
from .attempts import Ended

NOISE = re.compile(
    r"^(warning: |SIG\w+: stops after|`Trainer|Loading `|Restor(ing|ed) "  # the project's own, and Lightning's
    r"|-{20,}|distributed_backend=|Initializing distributed|All distributed processes"  # its, of several processes
    r"|\[?[WI]\d{4}|\[W|\[Gloo\]|\s*$)"  # torch's
)
"""Lines on stderr that are no errors."""
FULL_DISK = re.compile(
    r"^error: (/\S+|a file in the run's folder) cannot be written "
    r"\((No space left on device|File too large)\); free some space"
)
NO_RECORD = re.compile(
    r"^error: \S+ (is not the record of a run .*|already holds a run but no run\.json, and would be overwritten)"
    r"; take another name or hydra\.run\.dir(, and (ckpt_path=\S+) to continue from there)?"
)
LOST = re.compile(r"^error: another process of this run ended or cannot be reached")
LOCKED = re.compile(r"^error: \S+ is being trained by another process; wait for it")
NOTHING_LEFT = re.compile(r"^error: \S+/last\.ckpt has all of its \d+ (steps|epochs); to continue raise trainer\.max_")
ROWS_LOST = re.compile(r"\S+metrics\.csv is not as the run left it at step (\d+) \(\d+ of \d+ rows can be read\).*")
BEST_LOST = re.compile(r"\S+best_\S+\.ckpt, the best checkpoint so far, is damaged or gone; .*")
SET_ASIDE = re.compile(r"\S+ cannot be read .*renamed to \S+\.damaged\S*, an older one is used")
KILLED = {
    -9: ("SIGKILL", *faults.FILES),
    -15: ("SIGTERM",),
    143: ("SIGTERM", "SIGINT"),
    -2: ("SIGINT",),
    130: ("SIGINT",),
}
"""Exit status -> the faults that may cause it; a process says SIGTERM of any signal that only another one heard."""


class Fault(Exception):
    """Something that no user should see."""


def error_line(end: Ended, struck: Collection[str], harmed: Collection[str]) -> str | None:
    """The one line with which an attempt ended, or None if it ended well or by the signal that it was sent.

    Args:
        end: how the attempt ended.
        struck: faults so far.
        harmed: names of the files that were damaged or deleted so far.

    Raises:
        Fault: no end, a traceback, more lines than one, a status without a reason, a checkpoint that nobody damaged.
    """
    if end.killed_by == "limit":
        raise Fault(f"did not end: {end.out[-300:]} {end.err[-300:]}")
    if "Traceback" in end.out + end.err:
        trace = (end.out + end.err).rpartition("Traceback")[2].strip().splitlines()
        raise Fault(f"traceback: {trace[-1][:300]}")
    aside = SET_ASIDE.search(end.out)
    if aside and not any(name.endswith(".ckpt") for name in harmed):
        raise Fault(f"a checkpoint was not whole: {aside[0]}")
    if end.status == 0 or end.killed_by == "launcher":
        return None
    if end.status in KILLED:
        if not set(KILLED[end.status]) & set(struck):
            raise Fault(f"status {end.status} without a signal: {end.err[-300:]}")
        return None
    lines = [line for line in end.err.splitlines() if not NOISE.match(line)]
    if end.status not in (1, 2) or len(lines) != 1:
        raise Fault(f"status {end.status} with {len(lines)} lines: {' | '.join(lines)[-600:]}")
    return lines[0]
