"""Which yaml a key of the config comes from, and keys that nobody will ever read. Imports no torch."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from litdiffusion.errors import UserError, nearest

NODES = ("callbacks", "logger")
"""Groups of named parts: one without a ``_target_`` is built by nobody."""


@dataclass(frozen=True)
class Yamls:
    """The yamls of a config.

    Args:
        folders: that hold groups, the project's own first.
        chosen: those that the config was composed from, the primary one first.
        overrides: values given on the command line, which stand in no yaml.
    """

    folders: Sequence[Path]
    chosen: Sequence[Path] = ()
    overrides: Sequence[str] = ()

    @classmethod
    def of_this_job(cls) -> "Yamls":
        """Those of the Hydra job that is running."""
        hydra = HydraConfig.get()
        folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
        choices, primary = hydra.runtime.choices, hydra.job.config_name
        order = [group for entry in _defaults(folders, primary) if isinstance(entry, dict) for group in entry]
        groups = sorted(choices, key=lambda group: order.index(group) if group in order else -1)
        names = [primary, *(f"{group}/{choices[group]}" for group in groups)]
        chosen = [file for name in names for file in _with_parents(folders, name)]
        values = [word for word in task_overrides() if word.partition("=")[0] not in choices]
        return cls(folders, chosen, values)

    def setting(self, key: str) -> Path | None:
        """The yaml that sets a dotted key: of the chosen ones the last; None where the command line does, or none."""
        names = [override.lstrip("+~").partition("=")[0] for override in self.overrides]
        if any(key == name or key.startswith(f"{name}.") for name in names):
            return None
        return next((path for path in reversed(self.chosen) if self._sets(path, key)), None)

    def mentioning(self, word: str) -> Path | None:
        """A yaml that holds this word, in the folders that were added to the project's own first."""
        pattern = re.compile(rf"(?<![\w.]){re.escape(word)}(?![\w.])")
        files = (path for folder in reversed(self.folders) for path in sorted(folder.rglob("*.yaml")))
        return next((path for path in files if pattern.search(path.read_text(errors="replace"))), None)

    def members(self, group: str) -> set[str]:
        """The names of the parts with a target that any yaml, of the group or of an experiment, gives it."""
        contents = [(path, _read(path)) for folder in self.folders for path in folder.rglob("*.yaml")]
        nodes = [content if path.parent.name == group else content.get(group) for path, content in contents]
        return {
            name
            for node in nodes
            if isinstance(node, Mapping)
            for name, part in node.items()
            if isinstance(part, Mapping) and "_target_" in part
        }

    def _sets(self, path: Path, key: str) -> bool:
        content, parts = _read(path), key.split(".")
        folder = next(folder for folder in self.folders if path.is_relative_to(folder))
        whole = re.search(r"^#\s*@package\s+_global_", path.read_text(errors="replace"), re.MULTILINE)
        package = [] if whole else list(path.relative_to(folder).parts[:-1])
        return parts[: len(package)] == package and _holds(content, parts[len(package) :])


def task_overrides() -> list[str]:
    """The words of the command line that are about this project; as typed, for ``${seed}`` has no meaning there."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)


def check_keys(cfg: DictConfig, primary: Mapping[str, Any], yamls: Yamls) -> None:
    """Refuses keys that no part reads: typing errors in a yaml or after a ``+``, which Hydra takes for new settings.

    Args:
        cfg: as composed.
        primary: the content of the primary config, whose keys are the known ones, with the groups.
        yamls: of this config.

    Raises:
        UserError: the key, the nearest known one, and the yaml that it stands in.
    """
    groups = [path.name for folder in yamls.folders for path in folder.iterdir() if path.is_dir()]
    _require_known(cfg, "", [*primary, *groups], yamls)
    needed = [
        group for entry in primary.get("defaults", []) if isinstance(entry, dict) for group in entry if entry[group]
    ]
    for key in (*primary, *needed):
        if key not in ("defaults", "hydra", "recipe") and key not in cfg:
            raise UserError(f"{key} is missing from the config; take ~{key} off the command line")
    _require_known(cfg.get("derived") or {}, "derived.", list(primary.get("derived", {})), yamls)
    for group in NODES:
        nodes = cfg.get(group) or {}
        orphans = [name for name in nodes if OmegaConf.is_dict(nodes[name]) and "_target_" not in nodes[name]]
        if orphans:
            _require_known(orphans, f"{group}.", sorted(yamls.members(group)), yamls)


def in_file(message: str, yamls: Yamls) -> str:
    """The message, with the yaml that sets the dotted key which it begins with, if one does."""
    key = re.match(r"\w+(\.\w+)*", message)
    path = yamls.setting(key.group(0)) if key and "." in key.group(0) and "[in " not in message else None
    return message if path is None else f"{message} [in {path}]"


def _require_known(keys: Any, prefix: str, known: Sequence[str], yamls: Yamls) -> None:
    for key in (str(key) for key in keys):
        if key not in known:
            path = yamls.setting(f"{prefix}{key}")
            place = f" [in {path}]" if path else "; take it off the command line"
            raise UserError(f"{prefix}{key} is no key of the config{nearest(key, list(known))}{place}")


def _with_parents(folders: Sequence[Path], name: str) -> Iterator[Path]:
    """A yaml after those that its own defaults list builds on."""
    path = _found(folders, name)
    if path is None:
        return
    for entry in _defaults(folders, name):
        if isinstance(entry, str) and entry not in ("_self_", path.stem):
            group = name.rpartition("/")[0]
            yield from _with_parents(folders, f"{group}/{entry}" if group else entry)
    yield path


def _found(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)


def _defaults(folders: Sequence[Path], name: str) -> list[Any]:
    path = _found(folders, name)
    return (_read(path).get("defaults") or []) if path else []


def _holds(node: Any, parts: Sequence[str]) -> bool:
    """Whether nested dictionaries and lists have a value at these keys and indices."""
    if isinstance(node, list):
        node = {str(index): value for index, value in enumerate(node)}
    return not parts or (isinstance(node, Mapping) and parts[0] in node and _holds(node[parts[0]], parts[1:]))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # a broken yaml that was not chosen is nobody's concern; Hydra refuses a chosen one
    return content if isinstance(content, dict) else {}
