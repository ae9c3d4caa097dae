"""Values of the command line that Hydra's grammar cannot read: taken as typed, or refused with the quotes they need."""

import os
import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from litdiffusion.errors import UserError

MULTIRUN = ("-m", "--multirun")
TAKING_A_VALUE = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p")
"""Options of Hydra that are followed by a value, which is no override."""
_OVERRIDE = re.compile(r"([+~]*[^=\s]+)=(.+)", re.DOTALL)


def readable(words: Sequence[str]) -> list[str]:
    """The arguments, with quotes around a path that exists as it was typed.

    Raises:
        UserError: a value that cannot be read, or several values for a single run; names the quotes that it needs.
    """
    multirun = any(word in MULTIRUN for word in words)
    before = ["", *words]
    return [
        word if word.startswith("-") or previous in TAKING_A_VALUE else _readable(word, multirun)
        for word, previous in zip(words, before, strict=False)
    ]


def quoted(value: str) -> str:
    """The value as a quoted string of Hydra's grammar."""
    # In it a backslash is special only before a quote, and ${ still begins an interpolation.
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), value) + '"'


def _readable(word: str, multirun: bool) -> str:
    match = _OVERRIDE.fullmatch(word)
    override = match and _parsed(word)
    several = isinstance(override, Override) and override.value_type is ValueType.SIMPLE_CHOICE_SWEEP
    if match is None or (override is not None and not several):
        return word
    key, value = match.groups()
    if ("/" in value or "." in value) and os.path.exists(value):  # Path.exists fails on long texts
        return f"{key}={quoted(value.replace('${', chr(92) + '${'))}"
    if override is None:
        raise UserError(_refusal(key, value, multirun))
    if not multirun:
        raise UserError(
            f"{word} gives several values to a single run; for a run of each add -m, for a list give "
            f"{shlex.quote(f'{key}=[{value}]')}, for one text {shlex.quote(f'{key}={quoted(value)}')}"
        )
    return word


def _refusal(key: str, value: str, multirun: bool) -> str:
    if value[0] in "[{" and not _closes(value):
        return (
            f"{key}={value} does not close all of its brackets and quotes; type it as in 'key=[1,2]' or 'key={{a: 1}}'"
        )
    if value[0] == "[" and value[-1] == "]" and "[" not in value[1:]:
        items = [item.strip() for item in value[1:-1].split(",")]
        text = ",".join(item if _parsed(f"{key}={item}") else quoted(item) for item in items)
        return f"{key}={value} has characters that Hydra reads otherwise; quote it: {shlex.quote(f'{key}=[{text}]')}"
    parts = value.split(",") if multirun else [value]
    text = ",".join(part if part and _parsed(f"{key}={part}") else quoted(part) for part in parts)
    return f"{key}={value} has characters that Hydra reads otherwise; quote it: {shlex.quote(f'{key}={text}')}"


def _parsed(word: str) -> Override | None:
    """The override, or None if Hydra cannot read it."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _closes(value: str) -> bool:
    return all(value.count(left) == value.count(right) for left, right in ("[]", "{}")) and value.count('"') % 2 == 0
