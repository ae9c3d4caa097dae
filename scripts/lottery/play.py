"""Plays one draw: starts the command, strikes, and starts it again until the run is complete."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from litdiffusion.errors import UserError

from . import faults, lines, points
from .attempts import Ended, start_and_wait
from .draws import Blow, Draw
from .lines import Fault
from .outcome import Snapshot, differences, rows, snapshot, state
from .trigger import Reference, Trigger

SPARE_ATTEMPTS = 4
"""How often the command may be started beyond once for each blow."""


@dataclass
class Result:
    """What became of a draw.

    Args:
        verdict: "equal", "explained" or "failed".
        reason: what differed, or the line that explains it; empty if the run ended equal.
        missed: blows whose moment did not come before the run was complete.
        attempts: how often the command was started.
        cpu_seconds: of all its processes.
    """

    verdict: str
    reason: str = ""
    missed: int = 0
    attempts: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class Hand:
    """One draw while it is played in the folder ``home``."""

    draw: Draw
    home: Path
    images: Path
    reference: Reference
    verbose: bool = False
    attempts: int = 0
    shift: float = 0.0
    place: tuple[str, ...] = ("name=run",)
    old: Path | None = None
    printed: str = ""
    finished: bool = False
    explained: list[str] = field(default_factory=list)
    harmed: list[str] = field(default_factory=list)
    struck: list[Blow] = field(default_factory=list)

    def play(self) -> Result:
        """Starts the command until the run is complete."""
        self.home.mkdir(parents=True)
        self.run, pending = self.home / "outputs" / "run", list(self.draw.blows)
        try:
            while self.attempts < len(self.draw.blows) + SPARE_ATTEMPTS:
                before = len(self.struck)
                ended = self._start(_armed(pending))
                again = [self._react(end) for end in ended]
                if not any(again):
                    return self._verdict()
                self._change_files(self.struck[before:])
            raise Fault(f"not complete after {self.attempts} attempts: {ended[0].err[-300:]}")
        except Fault as fault:
            return Result("failed", str(fault))

    def _start(self, armed: list[Blow]) -> list[Ended]:
        hits, shift = self.home / "hits", self.shift
        hits.write_text("")

        @contextlib.contextmanager
        def prepared(rank: int) -> Iterator[None]:
            if shift:
                faults.change_clock(shift)
            mine = [blow for blow in armed if blow.rank == rank]
            trigger = Trigger(mine, self.reference, rank, hits)
            with points.watched(trigger, lines=any(blow.point == points.LINE for blow in mine)):
                yield

        self.attempts += 1
        words = [*self.place, *self.draw.feature.overrides(self.images)]
        ended = start_and_wait(words, self.home, self.draw.feature.processes, prepared)
        new = [blow for line in hits.read_text().splitlines() for blow in armed if str(blow) == line]
        self.struck += new
        self.printed += "".join(end.out for end in ended)
        self._show(f"attempt {self.attempts}: {', '.join(map(str, new)) or 'left alone'}")
        for rank, end in enumerate(ended):
            self._show(f"-- process {rank}: status {end.status} after {end.seconds:.1f} s\n{end.out}{end.err}".rstrip())
        return ended

    def _react(self, end: Ended) -> bool:
        """Whether the command must be started again; follows the advice of its error if the blows explain it."""
        struck = {blow.fault for blow in self.struck}
        line = lines.error_line(end, struck, self.harmed)
        if line is None:
            return end.status != 0
        two = self.draw.feature.processes > 1
        if (lines.FULL_DISK.match(line) and struck & set(faults.FULL)) or (lines.LOST.match(line) and two and struck):
            return True  # the next attempt has space, and all of its processes
        if (found := lines.NO_RECORD.match(line)) and "run.json" in self.harmed:
            self._continue_elsewhere(found[3])
        elif lines.NOTHING_LEFT.match(line) and self.old is not None:
            self.finished = True
        elif lines.LOCKED.match(line) and self.draw.feature.base == "streaming":
            time.sleep(6)  # a worker of a killed loader notices that after at most 5 s
        else:
            raise Fault(f"an error that its faults do not explain: {line[:400]}")
        self.explained.append(line)
        return not self.finished

    def _continue_elsewhere(self, checkpoint: str | None) -> None:
        """Starts a new run under another name, from a checkpoint of the run that lost its record."""
        name = f"run_without_record_{self.attempts}"
        self.old, self.run = self.run, self.home / "outputs" / name
        self.place = (f"name={name}", *([checkpoint] if checkpoint else []))

    def _change_files(self, new: list[Blow]) -> None:
        """What happens between this attempt and the next."""
        for blow in new:
            if blow.fault == faults.CLOCK:
                self.shift += faults.shift_of(blow.amount)
                faults.shift_files(self.run, faults.shift_of(blow.amount))
            elif blow.fault == "move" and self.run.exists():
                to = self.home / f"moved_{self.attempts}" / "run"
                faults.move(self.run, to)
                self.run, self.place = to, (f"hydra.run.dir={to}",)
            elif blow.fault in faults.FILES and not self._is_complete():
                names = faults.harm(self.run, blow.fault, blow.target, blow.manner, blow.amount)
                self._show(f"-- {blow.fault}: {names or 'no such file yet'}")
                self.harmed += names

    def _verdict(self) -> Result:
        missed = len(self.draw.blows) - len(self.struck)
        if self.old is not None:  # the new run has the rows, the pictures and the best checkpoint since
            return self._verdict_on_state(self.old if self.finished else self.run, missed)
        if not self._is_complete():
            raise Fault("status 0, but the run is not complete")
        differ = differences(self._without_harmed_pictures(self.reference.left), self._left())
        if "metrics.csv" in self.harmed and "rows of metrics.csv" in differ:
            self._check_lost_rows(differ.pop("rows of metrics.csv"))
        if any("best_" in name for name in self.harmed) and (said := lines.BEST_LOST.search(self.printed)):
            if differ.keys() & {"best checkpoint", "files"}:
                self.explained.append(said[0])
            differ = {part: how for part, how in differ.items() if part not in ("best checkpoint", "files")}
        if differ:
            raise Fault("; ".join(f"{part} differs: {how}" for part, how in differ.items())[:1500])
        return Result("explained" if self.explained else "equal", " | ".join(self.explained), missed)

    def _is_complete(self) -> bool:
        try:
            return json.loads((self.run / "run.json").read_text())["status"] == "complete"
        except (OSError, ValueError, KeyError):
            return False

    def _left(self) -> Snapshot:
        try:
            return self._without_harmed_pictures(snapshot(self.run))
        except (UserError, OSError, ValueError) as error:
            raise Fault(f"the complete run cannot be read: {error}") from error

    def _without_harmed_pictures(self, left: Snapshot) -> Snapshot:
        """Without pictures that were damaged or deleted: a run does not draw those before its checkpoint again."""
        files = (name for name in left["files"].split() if Path(name).name not in self.harmed or "pictures" not in name)
        return {part: how for part, how in left.items() if part not in self.harmed} | {"files": " ".join(files)}

    def _verdict_on_state(self, run: Path, missed: int) -> Result:
        found = state(run)
        if differ := differences({part: self.reference.left[part] for part in found}, found):
            raise Fault(f"{' and '.join(differ)} differ in the run that goes on from a run without a record")
        return Result("explained", " | ".join(self.explained), missed)

    def _check_lost_rows(self, how: str) -> None:
        """Accepts other rows in a metrics.csv that was harmed if that was said and all rows since then are right."""
        said = list(lines.ROWS_LOST.finditer(self.printed))
        if not said or _since(rows(self.run), said[-1]) != _since(self.reference.rows, said[-1]):
            raise Fault(f"rows of metrics.csv differ: {how}")
        self.explained.append(said[-1][0])

    def _show(self, text: str) -> None:
        if self.verbose:
            print(text, flush=True)


def _since(found: list[dict[str, str]], said: re.Match) -> list[dict[str, str]]:
    """The rows of the steps after the one that a line names."""
    return [row for row in found if row["step"].isdigit() and int(row["step"]) >= int(said[1])]


def _armed(pending: list[Blow]) -> list[Blow]:
    """Takes from ``pending`` the blows of the next attempt: up to the first one that ends it."""
    armed = []
    while pending:
        armed.append(pending.pop(0))
        if armed[-1].ends_attempt:
            break
    return armed
