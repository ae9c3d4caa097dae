"""The yamls that a config is composed from, and the values that each of them sets. Imports no torch."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.secrets import masked_text

# Ten times as fast as the loader in Python, where PyYAML has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Yamls:
    """The yamls of a config.

    Args:
        folders: folders with config groups, the project's own first.
        chosen: yamls that the config was composed from, the primary config first.
        overrides: (dotted key, value) of every override that is not a choice of a group.
    """

    folders: Sequence[Path]
    chosen: Sequence[Path] = ()
    overrides: Sequence[tuple[str, Any]] = ()

    @classmethod
    def of_this_job(cls) -> "Yamls":
        """The yamls of the running Hydra job."""
        return cls.of(HydraConfig.get())

    @classmethod
    def of(cls, hydra: DictConfig) -> "Yamls":
        """The yamls of the job with this ``hydra`` node."""
        folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
        choices, primary = hydra.runtime.choices, hydra.job.config_name.removesuffix(".yaml")
        order = _group_order(folders, primary)
        groups = sorted(choices, key=lambda group: order.index(group) if group in order else -1)
        names = [primary, *(f"{group}/{choices[group]}" for group in groups)]
        chosen = [file for name in names for file in _with_parents(folders, name)]
        return cls(folders, chosen, [pair for pair in _override_pairs(hydra) if not _is_choice(folders, *pair)])

    def layers(self) -> list["Layer"]:
        """The values that were merged, in their order; the command line is the last layer.

        A yaml and the yamls of its group in its defaults list form one layer.
        """
        contents = [(self._relative_path(path).parent, self._content_in_package(path)) for path in self.chosen]
        layers = [Layer([content for _, content in run]) for _, run in groupby(contents, key=itemgetter(0))]
        return [*layers, Layer([_nested(key.split("."), value) for key, value in self.overrides])]

    def setting(self, key: str) -> Path | None:
        """The last chosen yaml that sets a dotted key; None if the command line or no yaml sets it."""
        parts = key.split(".")
        if any(_covers(_nested(name.split("."), value), parts) for name, value in self.overrides):
            return None
        return next((path for path in reversed(self.chosen) if _holds(self._content_in_package(path), parts)), None)

    def mentioning(self, word: str) -> Path | None:
        """A yaml that contains ``word``, searched in added folders before the project's own."""
        pattern = re.compile(rf"(?<![\w.]){re.escape(word)}(?![\w.])")
        files = (path for folder in reversed(self.folders) for path in sorted(folder.rglob("*.yaml")))
        return next((path for path in files if pattern.search(path.read_text(errors="replace"))), None)

    def part_names(self, group: str) -> set[str]:
        """Names of all parts of ``group`` that have a target in any yaml of the group or of another group."""
        contents = [(path, _read(path)) for folder in self.folders for path in folder.rglob("*.yaml")]
        nodes = [content if path.parent.name == group else content.get(group) for path, content in contents]
        return {
            name
            for node in nodes
            if isinstance(node, Mapping)
            for name, part in node.items()
            if isinstance(part, Mapping) and "_target_" in part
        }

    def _content_in_package(self, path: Path) -> dict[str, Any]:
        """The content of a yaml, nested below its package."""
        header = re.search(r"^#\s*@package\s+(\S+)", path.read_text(errors="replace"), re.MULTILINE)
        package = header.group(1) if header else "_group_"
        own = {"_global_": [], "_group_": list(self._relative_path(path).parts[:-1])}
        return _nested(own.get(package, package.split(".")), _read(path))

    def _relative_path(self, path: Path) -> Path:
        """The path of a yaml, relative to its folder of groups."""
        return path.relative_to(next(folder for folder in self.folders if path.is_relative_to(folder)))


@dataclass(frozen=True)
class Layer:
    """Contents of yamls that are merged together."""

    contents: Sequence[dict[str, Any]]

    def holds(self, key: str) -> bool:
        """Whether the layer sets a dotted key, or a key below it."""
        return any(_holds(content, key.split(".")) for content in self.contents)

    def value(self, key: str) -> Any:
        """The value that the layer sets for a dotted key; None if it sets none."""
        parts = key.split(".")
        values = [reduce(_child, parts, content) for content in self.contents if _holds(content, parts)]
        return values[-1] if values else None


def groups_of_this_job() -> list[str]:
    """The groups of the defaults list in their order; empty outside a Hydra job."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    return _group_order(folders, hydra.job.config_name.removesuffix(".yaml"))


def task_overrides(hydra: DictConfig | None = None) -> list[str]:
    """The overrides of a job, except Hydra's own; unresolved, since ``${seed}`` has no value there.

    ``hydra`` is the job's node; None: of the running job.
    """
    return OmegaConf.to_container((hydra or HydraConfig.get()).overrides.task, resolve=False)


def override_dirname() -> str:
    """Hydra's ``override_dirname``, all overrides in one word, with its references as typed and without secrets."""
    return masked_text(OmegaConf.to_container(HydraConfig.get().job, resolve=False)["override_dirname"])


def groups_in(primary: Mapping[str, Any]) -> list[str]:
    """The groups in the defaults list of a config."""
    return [group for entry in primary.get("defaults") or [] if isinstance(entry, dict) for group in entry]


def _override_pairs(hydra: DictConfig) -> list[tuple[str, Any]]:
    """Key and value of each override."""
    words = OverridesParser.create().parse_overrides(task_overrides(hydra))
    return [(word.key_or_group, None if word.is_delete() else word.value()) for word in words]


def _is_choice(folders: Sequence[Path], key: str, value: Any) -> bool:
    """Whether an override chooses a yaml of a group, instead of setting a value."""
    return not isinstance(value, dict) and any((folder / key).is_dir() for folder in folders)


def _group_order(folders: Sequence[Path], primary: str) -> list[str]:
    return groups_in({"defaults": _defaults(folders, primary)})


def _nested(keys: Sequence[str], value: Any) -> Any:
    return {keys[0]: _nested(keys[1:], value)} if keys else value


def _with_parents(folders: Sequence[Path], name: str) -> Iterator[Path]:
    """The yamls in the defaults list of a yaml, then the yaml itself."""
    path = _find_yaml(folders, name)
    if path is None:
        return
    for entry in _defaults(folders, name):
        if isinstance(entry, str) and entry not in ("_self_", path.stem):
            group = name.rpartition("/")[0]
            yield from _with_parents(folders, f"{group}/{entry}" if group else entry)
    yield path


def _find_yaml(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)


def _defaults(folders: Sequence[Path], name: str) -> list[Any]:
    path = _find_yaml(folders, name)
    return (_read(path).get("defaults") or []) if path else []


def _holds(node: Any, parts: Sequence[str]) -> bool:
    """Whether nested dictionaries and lists have a value at these keys or indices."""
    if isinstance(node, list):
        node = {str(index): value for index, value in enumerate(node)}
    return not parts or (isinstance(node, Mapping) and parts[0] in node and _holds(node[parts[0]], parts[1:]))


def _covers(node: Any, parts: Sequence[str]) -> bool:
    """Whether merging ``node`` sets the value at these keys; a value that is no dictionary replaces all keys below."""
    if not parts or not isinstance(node, Mapping):
        return True
    return parts[0] in node and _covers(node[parts[0]], parts[1:])


def _child(node: Any, part: str) -> Any:
    return node[int(part)] if isinstance(node, list) else node[part]


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # only chosen yamls matter, and Hydra refuses a broken one of these


@lru_cache(maxsize=512)  # the jobs of a sweep read the same yamls, and each job some of them several times
def _parsed(text: str) -> dict[str, Any]:
    content = yaml.load(text, _LOADER)
    return content if isinstance(content, dict) else {}
