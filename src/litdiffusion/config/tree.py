"""``print_config=true``: prints the final config as a tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from litdiffusion.config.public import public


def show(cfg: DictConfig, order: Sequence[str] = ()) -> None:
    """Prints the config as `public` makes it: first the single values, then the groups in their ``order``."""
    plain = public(cfg)
    keys = sorted(plain, key=lambda key: order.index(key) if key in order else -1)
    tree = _add_nodes(Tree("config"), {key: plain[key] for key in keys})
    Console(soft_wrap=True, highlight=False).print(tree)


def _add_nodes(tree: Tree, node: Mapping[str, Any]) -> Tree:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            _add_nodes(tree.add(Text(str(key), style="bold")), value)
        else:
            tree.add(Text(f"{key}: {_yaml_text(value)}"))
    return tree


def _yaml_text(value: Any) -> str:
    """The value in yaml syntax on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
