"""Names of a sweep's jobs. A name depends on the overrides alone, so that a job always has the same folder."""

import hashlib
import re
from collections.abc import Iterable

from omegaconf import ListConfig, OmegaConf

from litdiffusion.config.keys import relevant
from litdiffusion.config.public import public_words
from litdiffusion.errors import UserError

LONGEST = 100


def job_name(overrides: Iterable[str]) -> str:
    """``schedule-linear_seed-1`` for ``["seed=1", "schedule=linear", "sweep=..."]``: sorted, with safe characters only.

    Overrides that do not change the result (see `keys.relevant`) are left out. A name that is too long for a folder,
    or that lost special characters, ends in a digest of the overrides, so that two jobs never share it.
    """
    words = sorted(word.lstrip("+~") for word in relevant(public_words(_as_typed(overrides))))
    words.sort(
        key=lambda word: "." in word.partition("=")[0]
    )  # groups and seed first, since a long name is cut at the end
    plain = "_".join(word.replace("=", "-", 1) for word in words) or "default"
    safe = re.sub(r"[^A-Za-z0-9_.+-]+", ".", plain).strip(".")
    if safe == plain and len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
    return f"{safe[:LONGEST]}_{digest}"


def check_folder_name(key: str, name: object) -> None:
    """Refuses a value of ``key`` that cannot name a folder."""
    if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", str(name)):
        raise UserError(f"{key}={name!r} must consist of letters, digits and . + - _, since it names a folder")


def sweep_folder(sweep: object, unnamed: str) -> str:
    """The folder of a sweep; ``unnamed`` if the sweep has no name."""
    if sweep is None:
        return unnamed
    check_folder_name("sweep", sweep)
    return f"outputs/sweeps/{sweep}"


def job_subdir(sweep: object, overrides: Iterable[str], unnamed: object) -> str:
    """The folder of a job, relative to that of its sweep; ``unnamed`` if the sweep has no name."""
    return str(unnamed) if sweep is None else job_name(overrides)


def job_folder(sweep: object, overrides: Iterable[str], unnamed: str) -> str:
    """The folder of a job that is started without -m (W&B agents, job arrays); the same as with -m."""
    return unnamed if sweep is None else f"{sweep_folder(sweep, unnamed)}/{job_name(overrides)}"


def _as_typed(overrides: Iterable[str]) -> list[str]:
    """The overrides with their references, which a list of OmegaConf's would resolve on access."""
    return OmegaConf.to_container(overrides, resolve=False) if isinstance(overrides, ListConfig) else list(overrides)


def relevant_values(overrides: Iterable[str]) -> dict[str, str]:
    """Key and value of each override that changes what a job computes."""
    pairs = (word.lstrip("+~").partition("=") for word in relevant(overrides))
    return {key: value for key, _, value in pairs}
