"""What a config reads from the environment: numbers as if typed, and which value comes from which variable.

Imports no torch.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from litdiffusion.config.secrets import looks_secret

_REFERENCE = re.compile(r"\$\{\s*oc\.env\s*:")
_READ: list[set[str]] = []


def env(name: str, *default: Any) -> Any:
    """OmegaConf's ``oc.env``; `reading` learns the name."""
    for names in _READ:
        names.add(str(name))
    return oc.env(name, *default)


@contextmanager
def reading() -> Iterator[set[str]]:
    """Yields the names of the variables that the block reads through ``oc.env``, however deeply nested."""
    names: set[str] = set()
    _READ.append(names)
    try:
        yield names
    finally:
        _READ.remove(names)


def read_numbers(cfg: DictConfig | ListConfig, secret: bool = False) -> None:
    """Replaces every ``${oc.env:NAME}`` whose text is a number, true, false or null by that value, as if typed.

    A reference inside a longer text stays, and so does a secret.
    """
    raw = OmegaConf.to_container(cfg, resolve=False)
    for key in raw if isinstance(raw, dict) else range(len(raw)):
        hidden = secret or looks_secret(key)
        if isinstance(raw[key], dict | list):
            read_numbers(cfg[key], hidden and "_target_" not in raw[key])
        elif not hidden and is_whole_reference(raw[key]):
            found, value = _number(cfg, key)
            if found:
                cfg[key] = value


def read_word(word: str) -> str:
    """An override; the number of ``key=${oc.env:NAME}`` is written in place of the reference."""
    key, _, text = word.partition("=")
    if not is_whole_reference(text) or looks_secret(key.rpartition(".")[2]):
        return word
    found, value = _number(OmegaConf.create({"value": text}), "value")
    return f"{key}={'null' if value is None else str(value).lower()}" if found else word


def is_whole_reference(text: Any) -> bool:
    """Whether a text is one ``${oc.env:...}`` and nothing else."""
    if not isinstance(text, str) or not _REFERENCE.match(text):
        return False
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth == 0 and letter == "}":
            return position == len(text) - 1
    return False


def _number(cfg: DictConfig | ListConfig, key: Any) -> tuple[bool, Any]:
    """Whether the text at ``key`` is a number, true, false or null, and that value."""
    try:
        with reading() as names:
            text = cfg[key]
        if not isinstance(text, str) or any(map(looks_secret, names)):
            return False, None
        value = OverridesParser.create().parse_override(f"key={text}").value()
    except (OmegaConfBaseException, HydraException):
        return False, None  # not set: whoever reads the value reports that
    return isinstance(value, bool | int | float) or (value is None), value
