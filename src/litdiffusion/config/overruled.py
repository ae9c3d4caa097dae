"""Choices of groups that were typed, but that another choice overrules: Hydra says nothing of them."""

from collections.abc import Iterator

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from litdiffusion.config.yamls import Yamls


def overruled() -> Iterator[str]:
    """A line for each typed choice that sets other groups, and of which not all came true.

    ``experiment=toy_spiral recipe=flow`` is an example: the experiment names its own schedule and sampler, and the
    later of two yamls that choose the same group wins.
    """
    hydra = HydraConfig.get()
    choices, yamls = hydra.runtime.choices, Yamls.of_this_job()
    typed = {word.lstrip("+").partition("=")[0] for word in hydra.overrides.task}
    for group in typed & choices.keys():
        wanted = _choices_of(yamls, f"{group}/{choices[group]}.yaml")
        lost = {name: choice for name, choice in wanted.items() if name not in typed and choices.get(name) != choice}
        if lost:
            yield _line(f"{group}={choices[group]}", lost, choices)


def _choices_of(yamls: Yamls, name: str) -> dict[str, str]:
    """Group -> choice, as the yaml ``name`` overrides them in its list of defaults."""
    path = next((folder / name for folder in yamls.folders if (folder / name).is_file()), None)
    entries = (yaml.safe_load(path.read_text()) or {}).get("defaults", []) if path else []
    pairs = (pair for entry in entries if isinstance(entry, dict) for pair in entry.items())
    return {
        key.removeprefix("override").strip().lstrip("/"): choice for key, choice in pairs if key.startswith("override")
    }


def _line(word: str, lost: dict[str, str], choices: DictConfig) -> str:
    by = f"experiment={choices['experiment']}" if choices.get("experiment") else "another choice"
    kept = ", ".join(f"{name}={choices.get(name)}" for name in lost)
    unused = ", ".join(f"{name}={choice}" for name, choice in lost.items())
    return f"note: {by} sets {kept}; of {word} these are not used: {unused}. Type what you want by its own name"
