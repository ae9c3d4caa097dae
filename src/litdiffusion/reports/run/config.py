"""The config of a run, with what differs from the defaults and what was typed."""

from collections.abc import Iterator
from typing import Any

import yaml

from litdiffusion.config.composition import default_config
from litdiffusion.config.identity import differences
from litdiffusion.reports.html.blocks import Block, Cell, Code, Folded, Section, Table, Text
from litdiffusion.reports.run.reading import Reading

NOT_SETTINGS = ("expected", "name", "sweep")
"""Keys that say what a run is called, or what its number should be."""


def config_section(run: Reading) -> Section:
    """A table of what differs from the defaults, and the whole config with these lines marked."""
    rows = list(changed(run))
    marked = {key for key, _, _ in rows}
    table = Table(
        ["key", "value of this run", "default"],
        [
            [
                Cell(key, style="key typed" if is_typed(run, key) else "key"),
                _cell(now, "key"),
                _cell(default, "key faint") if _holds(default_config(), key) else Cell("–", style="faint"),
            ]
            for key, now, default in rows
        ],
        "Against what litdiffusion train composes without any word. A bar on the left: this key was typed; the others "
        "come with a choice of a group, such as experiment=, model= or data=. –: the default part has no such key.",
    )
    blocks: list[Block] = [table] if rows else [Text("Nothing differs from the defaults.")]
    return Section(
        "config", "Configuration", [*blocks, Folded("The whole config", [Code(list(_lines(run.config, marked)))])]
    )


def changed(run: Reading) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value of the run, default) for every setting that differs; of a replaced part, its own settings."""
    for key, default, now in differences(default_config(), run.config):
        gone = now is None and not _holds(run.config, key)
        if not gone and key.partition(".")[0] not in NOT_SETTINGS:
            yield key, now, default


def is_typed(run: Reading, key: str) -> bool:
    """Whether an override sets the key, or a value that holds it."""
    words = (word.lstrip("+~").partition("=")[0] for word in run.record.overrides)
    return any(key == word or key.startswith(f"{word}.") for word in words if "/" not in word and _is_value(run, word))


def _is_value(run: Reading, word: str) -> bool:
    """Whether an override sets a value, and does not choose a group's yaml."""
    typed = [each.partition("=")[2] for each in run.record.overrides if each.lstrip("+~").partition("=")[0] == word]
    return "." in word or not isinstance(run.config.get(word), dict) or any(each.startswith("{") for each in typed)


def _holds(node: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _cell(value: Any, style: str) -> Cell:
    if isinstance(value, dict):
        value = str(value.get("_target_", "")).rpartition(".")[2] or value
    return Cell(text_of(value), style=style)


def text_of(value: Any) -> str:
    """A value as yaml would have it on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).strip()
    return text.removesuffix("...").strip()


def _lines(node: dict[str, Any], marked: set[str], above: str = "", indent: str = "") -> Iterator[tuple[str, bool]]:
    for key, value in node.items():
        path = f"{above}.{key}".lstrip(".")
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", path in marked
            yield from _lines(value, marked, path, f"{indent}  ")
        else:
            yield f"{indent}{key}: {text_of(value)}", path in marked
