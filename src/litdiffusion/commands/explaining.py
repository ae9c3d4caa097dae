"""Hydra's composition errors in one line, with the nearest known name, and the help text. Imports no torch."""

import re
import shlex
import sys
from pathlib import Path
from string import Template

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from litdiffusion.config import words
from litdiffusion.config.hints import did_you_mean, flat
from litdiffusion.config.yamls import Yamls, groups_in
from litdiffusion.errors import nearest

PACKAGES = {
    "joblib": "hydra-joblib-launcher==1.2.0",
    "submitit_local": "hydra-submitit-launcher==1.2.0",
    "submitit_slurm": "hydra-submitit-launcher==1.2.0",
    "ray": "hydra-ray-launcher==1.2.2",
}
"""Hydra launcher -> the package that brings it, as the extras of pyproject.toml name it."""


SWEEPING = ("hydra/launcher", "hydra/sweeper")
"""Groups of the configs that -m sweeps over."""


def help_text(config_dir: Path, config_name: str, typed: str) -> str:
    """The help text of the config with the command as typed; built here because Hydra takes three times as long."""
    cfg = OmegaConf.load(config_dir / f"{config_name}.yaml")
    plain = OmegaConf.to_container(cfg, resolve=False)
    groups = [
        f"{group}: {', '.join(sorted(choice.stem for choice in (config_dir / group).glob('*.yaml')))}"
        for group in sorted([*groups_in(plain), *(SWEEPING if "sweep" in plain["hydra"] else ())])
        if (config_dir / group).is_dir()
    ]
    values = OmegaConf.create({key: value for key, value in plain.items() if key not in ("defaults", "hydra")})
    return Template(cfg.hydra.help.template).safe_substitute(
        COMMAND=typed, APP_CONFIG_GROUPS="\n".join(groups), CONFIG=OmegaConf.to_yaml(values)
    )


def explain(error: Exception, config_dir: Path, config_name: str) -> str:
    """A composition error of Hydra in one line, with the nearest known name."""
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        if choice in PACKAGES:
            return f"{group}={choice} needs a package: pip install {PACKAGES[choice]}"
        line = f"{group}={choice} is not known{nearest(choice, options)} ({group} is one of {', '.join(options)})"
        return line + _yaml_mentioning(choice, config_dir)
    unknown = re.search(r"Could not (?:override|delete)(?: from config\.)? '(.+?)'", text)
    known = _known_keys(config_dir, config_name) if unknown else []
    if unknown is not None and (typed := _typed_group(unknown.group(1))):
        return f"{typed} sets a key that {unknown.group(1)} does not have; to add it type {shlex.quote('+' + typed)}"
    if unknown is None or unknown.group(1) in known or "Did you mean" in text:
        return one_line(error)
    return _unknown_key(unknown.group(1), known, text) + _yaml_mentioning(unknown.group(1), config_dir)


def _typed_group(key: str) -> str | None:
    """The argument ``key={...}`` of the command line, or None."""
    return next((word for word in sys.argv[1:] if word.startswith(f"{key}={{")), None)


def _unknown_key(key: str, known: list[str], text: str) -> str:
    """The message for an unknown key, with the nearest known key, or with Hydra's advice to add the key."""
    hint, add = did_you_mean(key, known), re.search(r"[Tt]o append to your config use \+.+", text)
    new = add and not hint and "." in key and key.partition(".")[0] in known
    advice = f"; t{add.group(0)[1:]}" if new else ""
    return f"there is no group or key {key}{hint} (see --help, --cfg job{advice})"


def one_line(error: Exception) -> str:
    """Hydra's own message in one line, without its list of folders."""
    text = re.split("[Cc]onfig search path:", str(error))[0]
    cause = str(error.__cause__ or "").partition("\n")[0]
    lines = [line.strip() for line in (text.strip() or cause).splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__


def _yaml_mentioning(word: str, config_dir: Path) -> str:
    """`` [in FILE]`` for the yaml that contains ``word``; empty if ``word`` is from the command line."""
    if any(re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", argument) for argument in sys.argv[1:]):
        return ""
    path = Yamls([config_dir, *_added_folders(sys.argv[1:])]).mentioning(word)
    return "" if path is None else f" [in {path}]"


def _added_folders(arguments: list[str]) -> list[Path]:
    """The folders of ``--config-dir FOLDER`` and ``hydra.searchpath=[FOLDER]``."""
    added = words.option(arguments, "--config-dir", "-cd")
    named = [] if added is None else [added]
    lists = [a.partition("=")[2].strip("[]").split(",") for a in arguments if a.startswith("hydra.searchpath=")]
    named += [name.removeprefix("file://") for names in lists for name in names]
    return [Path(name) for name in named if Path(name).is_dir()]


def _known_keys(config_dir: Path, config_name: str) -> list[str]:
    """Every group, and every dotted key of the config that the command line's choices compose."""
    pairs = [argument.partition("=") for argument in sys.argv[1:]]
    chosen = [f"{key}={value}" for key, _, value in pairs if (config_dir / key / f"{value}.yaml").is_file()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        cfg = compose(config_name, overrides=chosen)
    groups = [path.name for path in config_dir.iterdir() if path.is_dir() and not path.name.startswith("_")]
    keys = flat(OmegaConf.to_container(cfg, resolve=False))
    return groups + [key for key in keys if not key.startswith(("derived.", "expected."))]
