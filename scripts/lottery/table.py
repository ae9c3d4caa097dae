"""A table of the lottery: a scratch folder with the undisturbed runs, where many draws are played."""

import contextlib
import json
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import points
from .attempts import start_and_wait
from .draws import Draw
from .features import Feature, write_images
from .lines import Fault
from .outcome import rows, snapshot
from .play import Hand, Result
from .trigger import Reference


class Table:
    """Plays draws; a kind of run has one undisturbed run, made when it is first needed.

    Args:
        scratch: a new folder. The folder ``draw_SEED`` of a draw stays there if it failed.
        verbose: whether the output of every attempt is printed.
    """

    def __init__(self, scratch: Path, verbose: bool = False):
        self.scratch, self.verbose = scratch, verbose
        self.images = write_images(scratch / "images")
        self._references: dict[Feature, Reference] = {}

    def play(self, draw: Draw) -> Result:
        """Plays a draw."""
        begin, cpu = time.monotonic(), _cpu_of_children()
        home = self.scratch / f"draw_{draw.seed}"
        shutil.rmtree(home, ignore_errors=True)
        try:
            hand = Hand(draw, home, self.images, self.reference(draw.feature), self.verbose)
        except Fault as fault:
            return Result("failed", str(fault))
        result = hand.play()
        if result.verdict != "failed" and not self.verbose:
            shutil.rmtree(home)
        result.attempts = hand.attempts
        result.seconds, result.cpu_seconds = time.monotonic() - begin, _cpu_of_children() - cpu
        return result

    def reference(self, feature: Feature) -> Reference:
        """The undisturbed run of this kind."""
        if feature not in self._references:
            folder = self.scratch / str(feature).replace(" ", "_")
            self._references[feature] = _undisturbed(feature, folder, self.images)
        return self._references[feature]

    def remove(self) -> None:
        """Removes the scratch folder."""
        shutil.rmtree(self.scratch)


def _undisturbed(feature: Feature, home: Path, images: Path) -> Reference:
    home.mkdir()

    @contextlib.contextmanager
    def counted(rank: int) -> Iterator[None]:
        counter: Counter = Counter()
        with points.watched(lambda name: counter.update([name]), lines=True):
            yield
        (home / f"passes_{rank}.json").write_text(json.dumps(counter))

    ended = start_and_wait(["name=run", *feature.overrides(images)], home, feature.processes, counted)
    if any(end.status for end in ended):
        told = " | ".join(f"{end.status} {end.killed_by} {end.err[-1000:]}" for end in ended)
        raise Fault(f"the undisturbed run of {feature} failed: {told}")
    passes = [Counter(json.loads((home / f"passes_{rank}.json").read_text())) for rank in range(feature.processes)]
    run = home / "outputs" / "run"
    return Reference(snapshot(run), rows(run), passes, ended[0].seconds)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
