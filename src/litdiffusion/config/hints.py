"""Suggestions for misspelt keys. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any

SYNONYMS = {
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("steps", "num_steps", "iterations"), "trainer.max_steps"),
    **dict.fromkeys(("learning_rate", "base_lr"), "optimizer.lr"),
    **dict.fromkeys(("gpus", "num_gpus"), "trainer.devices"),
    **dict.fromkeys(("accumulate", "gradient_accumulation_steps"), "trainer.accumulate_grad_batches"),
    **dict.fromkeys(("gradient_clip", "grad_clip", "clip_grad_norm"), "trainer.gradient_clip_val"),
    "device": "trainer.accelerator",
    "ema": "ema_decay",
}
"""Names that other programs use -> the key of this project."""
SIMILAR, SIMILAR_IN_GROUP = 0.7, 0.5
"""Smallest similarity (0 to 1) of a suggestion: anywhere, and within the group that was typed, which has few keys."""


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """The hint that follows an unknown key; empty if no known key is similar."""
    found = list(dict.fromkeys(candidates(key, known)))[:3]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def candidates(key: str, known: Sequence[str]) -> list[str]:
    """Known dotted keys that ``key`` may stand for, the likeliest first.

    Tried in this order: a name from `SYNONYMS`; keys with the same last word in other groups; a similar word in the
    same group; a similar word anywhere.
    """
    prefix, _, word = key.rpartition(".")
    usual = SYNONYMS.get(word)
    if usual in known and prefix in ("", usual.rpartition(".")[0]):
        return [usual]
    if namesakes := [name for name in known if name.rpartition(".")[2] == word]:
        return _nearest_places(key, namesakes)
    beside = [name for name in known if name.rpartition(".")[0] == prefix]
    usual = [SYNONYMS[name] for name in _similar(word, list(SYNONYMS)) if SYNONYMS[name] in known]
    return _similar(word, beside, SIMILAR_IN_GROUP if prefix else SIMILAR) or _similar(word, known) or usual


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a nested dictionary."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")


def _nearest_places(key: str, names: Sequence[str]) -> list[str]:
    """The least nested of ``names``, or the one most similar to ``key`` if ``key`` is dotted."""
    if "." in key:
        return [max(names, key=lambda name: SequenceMatcher(None, key, name).ratio())]
    depth = min(name.count(".") for name in names)
    return [name for name in names if name.count(".") == depth]


def _similar(word: str, names: Sequence[str], alike: float = SIMILAR) -> list[str]:
    """The name whose last word is like ``word``, or the only one that begins with it."""
    last = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = get_close_matches(word, list(last), n=1, cutoff=alike)
    longer = [name for name in last if len(word) > 2 and name.startswith(word)]
    close = close or (longer if len(longer) == 1 else [])
    return [last[name] for name in close]
