"""One draw of the lottery, a function of its seed alone."""

import random
from dataclasses import dataclass

from . import faults, features, points
from .features import Feature

NAMED, LINES = 0.8, 0.12
"""Shares of the moments that are named points and lines; the others are times."""
DURING = (
    "batch start",
    "checkpoint",
    "complete",
    "picture",
    "rename",
    "row",
    "step",
    "train end",
    "validation",
    "line",
)
"""Points at which files exist that can be harmed."""


@dataclass(frozen=True)
class Blow:
    """A fault and its moment.

    Args:
        fault: one of `faults.WEIGHTS`.
        point: one of `points.POINTS`, or "line", or "time".
        share: in [0, 1): which of all passes of this point, from the first to the last one of an undisturbed run.
        rank: the process that is hit.
        amount: in [0, 1): how much; where a file is damaged, which size is full, how far the clock jumps.
        target: files that are damaged or deleted.
        manner: how they are damaged.
    """

    fault: str
    point: str
    share: float
    rank: int
    amount: float
    target: str
    manner: str

    def __str__(self) -> str:
        harmed = f" of {self.target}" if self.fault in ("damage", "delete") else ""
        manner = f" ({self.manner})" if self.fault == "damage" else ""
        return f"{self.fault}{harmed}{manner} at {self.point} {100 * self.share:.0f} %"

    @property
    def ends_attempt(self) -> bool:
        """Whether nothing more can happen to the same attempt."""
        return self.fault != faults.CLOCK


@dataclass(frozen=True)
class Draw:
    """A kind of run, and the blows that it takes one after another."""

    seed: int
    feature: Feature
    blows: tuple[Blow, ...]

    def __str__(self) -> str:
        return f"{self.feature}: {', then '.join(map(str, self.blows))}"


def draw(seed: int) -> Draw:
    """The draw of a seed."""
    chance = random.Random(seed)
    feature = _feature(chance)
    count = chance.choice([1, 1, 1, 2, 2, 3])
    return Draw(seed, feature, tuple(_blow(chance, feature, index) for index in range(count)))


def _feature(chance: random.Random) -> Feature:
    base = _weighted(chance, features.WEIGHTS)
    fitting = [extra for extra in sorted(features.EXTRAS) if Feature(base).fits(extra)]
    count = min(len(fitting), chance.choice([0, 0, 1, 1, 1, 2]))
    return Feature(base, tuple(sorted(chance.sample(fitting, count))))


def _blow(chance: random.Random, feature: Feature, index: int) -> Blow:
    fault = _weighted(chance, faults.WEIGHTS)
    if fault == "full disk" and feature.base in ("streaming", "compile"):
        fault = "full at fsync"  # because workers and compilers also need files elsewhere, which are not full
    kind = chance.random()
    named = DURING if fault in faults.FILES else sorted(points.POINTS)
    point = chance.choice([name for name in named if feature.passes(name)])
    point = point if kind < NAMED else points.LINE if kind < NAMED + LINES else points.TIME
    share = chance.random() ** (1 + index)  # later attempts start from a checkpoint and have less before them
    share = 0.3 + 0.7 * share if fault in faults.FILES else share
    rank = chance.randrange(feature.processes)
    target, manner = _weighted(chance, faults.TARGETS), chance.choice(faults.MANNERS)
    return Blow(fault, point, share, rank, chance.random(), target, manner)


def _weighted(chance: random.Random, weights: dict[str, int]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]
