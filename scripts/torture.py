"""Disturbs runs at drawn moments by drawn faults, each of which must end equal to an undisturbed run.

``python scripts/torture.py --draws 20 --seed 0`` plays the seeds 0 to 19. A run that was disturbed is started again by
the same command until it is complete. It must then be equal bit for bit (weights, average, optimizer, rows, pictures),
or have said in one line on stderr what only its user can mend. A failed draw prints the command that repeats it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from lottery import points
from lottery.chunks import Row, play_chunk
from lottery.draws import draw
from lottery.table import Table

SCRATCH = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
VERDICTS, SUMS = ("equal", "explained", "failed"), ("missed", "attempts", "seconds", "cpu_seconds")


def main() -> int:
    """Plays the draws and prints figures; returns status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20, help="number of draws")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--draw", type=int, help="play the draw of this seed alone, and print all of its output")
    parser.add_argument("--minutes", type=float, help="begin no draw after this time")
    parser.add_argument("--results", type=Path, help="file of results; draws that it holds are not played again")
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="folder of the runs; faster in memory")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    points.import_all()
    alone = arguments.draw is not None
    seeds = [arguments.draw] if alone else range(arguments.seed, arguments.seed + arguments.draws)
    table = Table(Path(tempfile.mkdtemp(prefix="torture-", dir=arguments.scratch)), verbose=alone)
    begin = time.monotonic()
    rows = play_chunk(seeds, lambda seed: play(table, seed), arguments.results, arguments.minutes)
    print(summary(rows), f"this call took {time.monotonic() - begin:.0f} s", sep="\n")
    failed = any(row["verdict"] == "failed" for row in rows)
    if alone or failed:
        print(f"folders: {table.scratch}")
    else:
        table.remove()
    return int(failed)


def play(table: Table, seed: int) -> Row:
    """Plays the draw of a seed; prints a failed one with the command that repeats it."""
    drawn = draw(seed)
    if table.verbose:
        print(f"draw {seed}: {drawn}", flush=True)
    result = table.play(drawn)
    if result.verdict != "equal":
        print(f"{result.verdict}: draw {seed}: {drawn}\n    {result.reason}", flush=True)
    if result.verdict == "failed":
        print(f"    kept in {table.scratch}; repeat it by: python scripts/torture.py --draw {seed}", flush=True)
    blows = [[blow.fault, blow.point] for blow in drawn.blows]
    return asdict(result) | {"feature": str(drawn.feature), "base": drawn.feature.base, "blows": blows}


def summary(rows: list[Row]) -> str:
    """The figures of all draws: verdicts, and how often each kind of run, moment and fault was drawn."""
    verdicts = Counter(row["verdict"] for row in rows)
    missed, starts, seconds, cpu = (sum(row[key] for row in rows) for key in SUMS)
    blows = [blow for row in rows for blow in row["blows"]]
    return "\n".join(
        (
            f"{len(rows)} draws: {', '.join(f'{verdicts[name]} {name}' for name in VERDICTS)}; "
            f"{len(blows)} faults, {missed} of them after the end; {starts} starts, {seconds:.0f} s, {cpu:.0f} CPU s",
            f"kinds of runs (compile is slow, so rare): {_counts(n for r in rows for n in r['feature'].split('+'))}",
            f"faults: {_counts(fault for fault, _ in blows)}",
            f"moments: {_counts(point for _, point in blows)}",
        )
    )


def _counts(names: Iterable[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())


if __name__ == "__main__":
    sys.exit(main())
