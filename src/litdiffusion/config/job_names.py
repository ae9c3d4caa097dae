"""The name of a sweep's job: a function of its overrides alone, so that the same job always has the same folder."""

import hashlib
import re
from collections.abc import Iterable

from litdiffusion.config.keys import relevant
from litdiffusion.errors import UserError

LONGEST = 100


def job_name(overrides: Iterable[str]) -> str:
    """``schedule-linear_seed-1`` for ``["seed=1", "schedule=linear", "sweep=..."]``: sorted, with safe characters only.

    Overrides that do not change the result (see `keys.relevant`) leave no trace. A name that is too long for a
    folder, or whose values had to be rewritten, ends in a digest of the whole, so that two jobs never share it.
    """
    words = sorted(word.lstrip("+~") for word in relevant(overrides))
    words.sort(key=lambda word: "." in word.partition("=")[0])  # groups and seed first: a cut takes the rest
    plain = "_".join(word.replace("=", "-", 1) for word in words) or "default"
    safe = re.sub(r"[^A-Za-z0-9_.+-]+", ".", plain).strip(".")
    if safe == plain and len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
    return f"{safe[:LONGEST]}_{digest}"


def sweep_folder(sweep: object, unnamed: str) -> str:
    """Of a sweep's jobs; ``unnamed`` where it has no name."""
    if sweep is None:
        return unnamed
    if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", str(sweep)):
        raise UserError(f"sweep={sweep!r} must consist of letters, digits and . + - _, for it names a folder")
    return f"outputs/sweeps/{sweep}"


def job_subdir(sweep: object, overrides: Iterable[str], unnamed: object) -> str:
    """Of a job below its sweep's folder; ``unnamed`` where the sweep has no name."""
    return str(unnamed) if sweep is None else job_name(overrides)


def job_folder(sweep: object, overrides: Iterable[str], unnamed: str) -> str:
    """Of a job that is started by itself, as W&B's agents and job arrays do: the one that -m gives it."""
    return unnamed if sweep is None else f"{sweep_folder(sweep, unnamed)}/{job_name(overrides)}"


def relevant_values(overrides: Iterable[str]) -> dict[str, str]:
    """Key and value of each override that decides what a job computes."""
    pairs = (word.lstrip("+~").partition("=") for word in relevant(overrides))
    return {key: value for key, _, value in pairs}
