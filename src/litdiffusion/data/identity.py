"""What identifies the data of a run, so that a resumed run is refused when they have changed."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any


@dataclass(frozen=True)
class Identity:
    """The data of a run: counts, a digest of everything, and for files one row each.

    Args:
        noun: what is counted, "images" or "items".
        training, validation: how many there are.
        digest: 64 hex digits that change with any item, its name, its class label or the order.
        class_names: names of the classes, in the order of their class labels.
        rows: ``name<TAB>...`` of each file, in order; empty for data without names.
    """

    noun: str
    training: int
    validation: int
    digest: str
    class_names: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    @classmethod
    def of_rows(
        cls, noun: str, training: int, validation: int, rows: Sequence[str], class_names: Sequence[str] = ()
    ) -> "Identity":
        """The identity of named items."""
        text = "\n".join((f"{training} {validation}", *class_names, *rows))
        return cls(
            noun, training, validation, hashlib.sha256(text.encode()).hexdigest(), tuple(class_names), tuple(rows)
        )

    def without_rows(self) -> "Identity":
        """The same identity, which no longer lists the items."""
        return replace(self, rows=())

    def record(self) -> dict[str, Any]:
        """Plain values for ``run.json``, without the rows."""
        return {
            key: list(value) if key == "class_names" else value for key, value in asdict(self).items() if key != "rows"
        }

    def listed(self) -> bytes:
        """The rows, compressed, for a file beside ``run.json``."""
        return zlib.compress("\n".join(self.rows).encode())


def rows_of(content: bytes) -> tuple[str, ...]:
    """The rows that `Identity.listed` compressed; empty if the content is damaged."""
    try:
        return tuple(zlib.decompress(content).decode().split("\n"))
    except (zlib.error, UnicodeDecodeError):
        return ()


def change(then: dict[str, Any], rows: Sequence[str], now: Identity) -> str | None:
    """What changed since a run recorded its data, in a few words; None if nothing did.

    Args:
        then: the `Identity.record` of the run.
        rows: its rows, or none.
        now: the identity of the data now.
    """
    then_names = list(then.get("class_names", now.class_names))
    if then.get("digest") == now.digest and then_names == list(now.class_names):  # not every digest covers the names
        return None
    counts = [then.get("training", 0) + then.get("validation", 0), now.training + now.validation]
    rows, now_rows = _of_one_kind(rows, now.rows)
    found = [f"{counts[0]} -> {counts[1]} {now.noun}"] if counts[0] != counts[1] else []
    if rows and now_rows:
        found += _first_difference(rows, now_rows)
    if then_names != list(now.class_names):
        pairs = zip_longest(then_names, now.class_names, fillvalue="none")
        k, (old, new) = next((k, pair) for k, pair in enumerate(pairs) if pair[0] != pair[1])
        found.append(f"class {k} was {old}, is {new}")
    if not found and rows != now.rows and rows == now_rows:
        return None  # as much as the two readings know is equal
    return ", ".join(found) or f"as many {now.noun} ({counts[1]}), but other values, labels or order"


def _of_one_kind(then: Sequence[str], now: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rows without checksums (their last field), if only one side has them: a set that is not decoded has none."""
    sides = tuple(then), tuple(now)
    if len({any(row.endswith("\t") for row in rows) for rows in sides if rows}) < 2:
        return sides
    return tuple(tuple(row.rpartition("\t")[0] for row in rows) for rows in sides)


def _first_difference(then: Sequence[str], now: Sequence[str]) -> list[str]:
    """The first name that is gone, new or changed, of each kind."""
    old, new = ({row.split("\t")[0]: row for row in rows} for rows in (then, now))
    kinds = {
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "changed": [name for name in old if name in new and old[name] != new[name]],
    }
    return [
        f"{names[0]} is {kind}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
        for kind, names in kinds.items()
        if names
    ]
