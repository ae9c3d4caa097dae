"""Rewrites command-line arguments that Hydra would refuse or misread. Imports no torch."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from litdiffusion.config.origins import OPTIONAL
from litdiffusion.config.quoting import MULTIRUN, readable
from litdiffusion.errors import UserError

DRY_RUN_OVERRIDES = ("hydra.output_subdir=null", "hydra/job_logging=none")
"""Added to a dry run, so that Hydra writes no files into the folder that it makes."""
NEW_RUN_OVERRIDES = ("name=null", "sweep=null")
"""Added to a run of a saved config, which is a new run in its own folder."""

CONFIG_PATH = ("--config-path", "-cp")

_TARGET = re.compile(r"^([\w.]+)(?:\._target_=|=\{.*\b_target_:)")
"""``part._target_=name`` or ``part={_target_: name, ...}``."""


def hydra_arguments(arguments: Sequence[str], script: Path, config_dir: Path, config_name: str) -> list[str]:
    """The arguments in the form that Hydra accepts.

    Raises:
        UserError: a group that every run needs is set to null, or a value that needs quotes, see `quoting`.
    """
    # First, because argparse takes no overrides on both sides of an option.
    arguments = sorted(arguments, key=lambda word: word not in MULTIRUN)
    primary = yaml.safe_load((config_dir / f"{config_name}.yaml").read_text())
    arguments = _with_checkpoint(arguments, primary)
    words = readable(_mark_new_keys([_replace_null(word, config_dir, primary) for word in arguments], primary))
    words = _with_absolute_folder(words, script)
    if "dry_run=true" in (word.lower() for word in words):
        words += [word for word in DRY_RUN_OVERRIDES if word not in words]
    if is_saved(config_file(words, script)):
        more = [*NEW_RUN_OVERRIDES, *_hydra_settings(primary)]
        words += [word for word in more if _key(word) not in map(_key, words)]
    return words


def _with_checkpoint(arguments: Sequence[str], primary: dict[str, Any]) -> list[str]:
    """Puts ``ckpt=`` before a word alone, where the config has that key: ``litdiffusion sample digits``."""
    if "ckpt" not in primary:
        return list(arguments)

    def alone(before: str, word: str) -> bool:
        return word[:1] not in "-~+" and "=" not in word and (before in MULTIRUN or not before.startswith("-"))

    return [f"ckpt={word}" if alone(before, word) else word for before, word in pairwise(["", *arguments])]


def config_file(arguments: Sequence[str], script: Path) -> Path | None:
    """The file that ``--config-path`` (absolute, or as `_folder` finds it) and ``--config-name`` name."""
    folder, name = option(arguments, *CONFIG_PATH), option(arguments, "--config-name", "-cn")
    return _folder(folder, script) / f"{name.removesuffix('.yaml')}.yaml" if folder and name else None


def _folder(typed: str, script: Path) -> Path:
    """A folder relative to the current one, or, as Hydra has it, to the script."""
    return Path.cwd() / typed if Path(typed).is_dir() else script.parent.absolute() / typed


def _with_absolute_folder(words: Sequence[str], script: Path) -> list[str]:
    """Makes ``--config-path`` absolute, because Hydra would take it relative to a module of this package."""
    folder = option(words, *CONFIG_PATH)
    if folder is None or "://" in folder:
        return list(words)
    whole = str(_folder(folder, script))
    joined = {f"{name}={folder}": f"{name}={whole}" for name in CONFIG_PATH}
    return [
        whole if word == folder and before in CONFIG_PATH else joined.get(word, word)
        for before, word in pairwise(["", *words])
    ]


def is_saved(path: Path | None) -> bool:
    """Whether this is a composed config that Hydra saved, which has no defaults list."""
    if path is None or not path.is_file():
        return False
    content = yaml.safe_load(path.read_text())
    return isinstance(content, dict) and not {"defaults", "hydra"} & content.keys()


def option(arguments: Sequence[str], *names: str) -> str | None:
    """The value of a Hydra option, given as ``--name value`` or ``--name=value``."""
    apart = [value for name, value in pairwise(arguments) if name in names]
    joined = [word.partition("=")[2] for word in arguments if word.partition("=")[0] in names and "=" in word]
    return next(iter([*apart, *joined]), None)


def _hydra_settings(primary: dict[str, Any]) -> Iterator[str]:
    """The ``hydra`` node of the primary config (run folders above all) as overrides, for a config without it."""
    settings = {key: value for key, value in primary.get("hydra", {}).items() if key != "help"}
    yield from _assignments("++hydra", settings)


def _assignments(prefix: str, node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _assignments(f"{prefix}.{key}", value)
    else:
        yield f"{prefix}=[{','.join(node)}]" if isinstance(node, list) else f'{prefix}="{node}"'


def _replace_null(word: str, config_dir: Path, primary: dict[str, Any]) -> str:
    """Replaces ``group=null``, which Hydra refuses, by ``group=none`` if that choice exists, else by ``~group``."""
    group, _, value = word.partition("=")
    values = value.split(",")
    if "null" not in values or not re.fullmatch(r"\w+(/\w+)*", group) or not (config_dir / group).is_dir():
        return word
    choices = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
    if "none" in choices:
        return f"{group}={','.join('none' if choice == 'null' else choice for choice in values)}"
    if group not in OPTIONAL and {group: None} not in primary.get("defaults", []):
        raise UserError(f"{group}=null leaves the run without a part that it needs; take one of {', '.join(choices)}")
    if len(values) > 1:
        raise UserError(f"{word}: a sweep needs named choices; {group} is one of {', '.join(choices)}")
    return f"~{group}"


def _mark_new_keys(words: Sequence[str], primary: dict[str, Any]) -> list[str]:
    """Puts ``++``, which Hydra requires for new keys, before arguments of a typed ``_target_`` and a sweeper's params.

    So too before the names of conditions where the config has some (``condition.angle=1.2``).

    A target's arguments are checked when it is built.
    """
    named = ["condition"] if "condition" in primary else []
    parts = ["hydra.sweeper.params", *named, *(name for word in words for name in _TARGET.findall(word))]
    return [f"++{word}" if any(_is_argument_of(word, part) for part in parts) else word for word in words]


def _is_argument_of(word: str, part: str) -> bool:
    return word.startswith((f"{part}={{", f"{part}.")) and not word.startswith(f"{part}._target_=")


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]
