"""Many seeds in chunks: results are appended to a file, and seeds that it holds are not played again."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def play_chunk(
    seeds: Iterable[int], play: Callable[[int], Row], results: Path | None, minutes: float | None
) -> list[Row]:
    """Plays seeds for up to ``minutes``; returns the rows of all of these seeds, also of earlier calls, in their order.

    Args:
        seeds: the seeds.
        play: the result of a seed, as values that json can hold.
        results: file with a line of json for each seed; None: nothing is kept.
        minutes: limit of this call; None: no limit.
    """
    begin = time.monotonic()
    rows = read_results(results)
    seeds = list(seeds)
    for seed in seeds:
        if minutes is not None and time.monotonic() - begin > 60 * minutes:
            break
        if seed not in rows:
            rows[seed] = {"seed": seed, **play(seed)}
            _append(results, rows[seed])
    return [rows[seed] for seed in seeds if seed in rows]


def read_results(path: Path | None) -> dict[int, Row]:
    """Seed -> row; a line that a kill cut off is left out, and its seed is played again."""
    rows = {}
    for line in path.read_text().splitlines() if path is not None and path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["seed"]] = row
    return rows


def _append(path: Path | None, row: Row) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
        with path.open("a") as file:
            file.write(("" if whole else "\n") + json.dumps(row) + "\n")
