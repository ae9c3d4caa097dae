"""The command line around Hydra: every error of the user's becomes one line and exit status 2. Imports no torch."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litdiffusion import sweeps
from litdiffusion.config import origins, replaced, resolvers, words
from litdiffusion.config.hints import did_you_mean, flat
from litdiffusion.errors import TrainingError, UserError, nearest

BAD_INPUT, FAILED = 2, 1
STOPPED = (130, 143)
"""Exit statuses after Ctrl-C and SIGTERM."""
EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "slurm", "ray": "ray"}
"""What brings Hydra's launchers."""
_STARTED: list[bool] = []


def run(main: Callable[[], None], config_dir: Path, config_name: str) -> None:
    """Runs a Hydra main; bad input ends in one line on stderr and status 2, a failed run in one line and status 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    warnings.showwarning = _one_line_warning
    _STARTED.clear()
    resolvers.forget_folders()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(config_dir, config_name))
        return
    with _sweep_told():
        _run(main, config_dir, config_name)


def _run(main: Callable[[], None], config_dir: Path, config_name: str) -> None:
    try:
        # In place, for Lightning starts the other processes of a run by the same arguments.
        sys.argv[1:] = words.understood(sys.argv[1:], Path(sys.argv[0]), config_dir, config_name)
        main()
    except (UserError, TrainingError) as error:
        _stop(error, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _stop(error, explain(error, config_dir, config_name))
    except yaml.YAMLError as error:
        _stop(error, f"this yaml cannot be read: {' '.join(str(error).split())}")
    except OSError as error:
        if _STARTED:
            raise
        # Hydra makes the output folder before any of our code runs.
        _stop(error, f"{error.filename} cannot be written ({error.strerror}); set hydra.run.dir=FOLDER")
    except ValueError as error:  # Hydra's own, of options that exclude each other and the like
        if _STARTED:
            raise
        _stop(error, _hydras_words(error))


@contextmanager
def _sweep_told() -> Iterator[None]:
    """A sweep's table follows whichever way it ends; status 1 where a job is not done."""
    try:
        yield
    except KeyboardInterrupt:
        sweeps.end(stopped=True)
        sys.exit(STOPPED[0])
    except SystemExit as status:
        sweeps.end(stopped=status.code in STOPPED)
        raise
    if not sweeps.end(stopped=False):
        sys.exit(FAILED)


def help_text(config_dir: Path, config_name: str) -> str:
    """The config's own help; Hydra's way to the same text takes three times as long, for listing the groups twice."""
    cfg = OmegaConf.load(config_dir / f"{config_name}.yaml")
    folders = sorted({path.parent for path in config_dir.glob("*/**/*.yaml")})
    groups = [
        f"{group.relative_to(config_dir)}: {', '.join(sorted(choice.stem for choice in group.glob('*.yaml')))}"
        for group in folders
    ]
    plain = OmegaConf.to_container(cfg, resolve=False)
    values = OmegaConf.create({key: value for key, value in plain.items() if key not in ("defaults", "hydra")})
    return Template(cfg.hydra.help.template).safe_substitute(
        APP_CONFIG_GROUPS="\n".join(groups), CONFIG=OmegaConf.to_yaml(values)
    )


@contextmanager
def job_errors(multirun: bool) -> Iterator[None]:
    """Inside a Hydra job: ends a single run at once; in a multirun lets the other jobs go on."""
    _STARTED.append(True)
    try:
        yield
    except (UserError, TrainingError, OmegaConfBaseException) as error:
        line = _line(error)
        if not multirun:
            _stop(error, line)
        print(f"error in this job: {line}", file=sys.stderr)
        raise


def check_keys(cfg: DictConfig, config_dir: Path, config_name: str) -> None:
    """Makes this job's config the one that is meant, and refuses keys that no part reads, see `origins.check_keys`.

    Arguments that were meant for another ``_target_`` go, see `replaced`, with a line that names them.
    """
    primary = OmegaConf.to_container(OmegaConf.load(config_dir / f"{config_name}.yaml"), resolve=False)
    yamls = origins.Yamls.of_this_job()
    _complete(cfg, primary, yamls)
    origins.check_keys(cfg, primary, yamls)
    dropped = replaced.drop_former_arguments(cfg, yamls)
    if dropped and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"dropped with the _target_ that was replaced: {', '.join(dropped)}", flush=True)
        _save_again(cfg)


def _complete(cfg: DictConfig, primary: Mapping[str, Any], yamls: origins.Yamls) -> None:
    """The config that an earlier run saved may be older than a setting: that has its usual value then."""
    if any(words.is_saved(path) for path in yamls.chosen[:1]):
        for key in primary.keys() - cfg.keys() - {"defaults", "hydra"}:
            OmegaConf.update(cfg, key, primary[key], force_add=True)


def _save_again(cfg: DictConfig) -> None:
    """Hydra has saved the config before; the file must hold what is trained, for it can be run again."""
    hydra = HydraConfig.get()
    path = Path(hydra.runtime.output_dir, hydra.output_subdir or "", "config.yaml")
    if hydra.output_subdir is not None and path.is_file():
        OmegaConf.save(cfg, path)


def _line(error: Exception) -> str:
    """An error inside a job, with the yaml that sets the key it is about."""
    text = str(error)
    if isinstance(error, OmegaConfBaseException):
        reason = text.splitlines()[0]
        text = f"{error.full_key}: {reason}" if getattr(error, "full_key", None) else reason
    return origins.in_file(text, origins.Yamls.of_this_job()) if HydraConfig.initialized() else text


def explain(error: Exception, config_dir: Path, config_name: str) -> str:
    """A composition error of Hydra's in one line, with the nearest known name."""
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        if choice in EXTRAS:
            return f"{group}={choice} needs a package: pip install 'litdiffusion[{EXTRAS[choice]}]'"
        line = f"{group}={choice} is not known{nearest(choice, options)} ({group} is one of {', '.join(options)})"
        return line + _named_in(choice, config_dir)
    unknown = re.search(r"Could not (?:override|delete)(?: from config\.)? '(.+?)'", text)
    known = _known_keys(config_dir, config_name) if unknown else []
    if unknown is None or unknown.group(1) in known or "Did you mean" in text:
        return _hydras_words(error)
    return _unknown_key(unknown.group(1), known, text) + _named_in(unknown.group(1), config_dir)


def _unknown_key(key: str, known: list[str], text: str) -> str:
    """An unknown key with the nearest one, or with Hydra's advice where the key could be a new one."""
    hint, add = did_you_mean(key, known), re.search(r"o append to your config use \+.+", text)
    new = add and not hint and "." in key and key.partition(".")[0] in known
    advice = f"; t{add.group(0)}" if new else ""
    return f"there is no group or key {key}{hint} (see --help, --cfg job{advice})"


def _hydras_words(error: Exception) -> str:
    """Hydra's own message in one line, without its list of folders."""
    text = str(error).partition("onfig search path:")[0].removesuffix("C")
    cause = str(error.__cause__ or "").partition("\n")[0]
    lines = [line.strip() for line in (text.strip() or cause).splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__


def _named_in(word: str, config_dir: Path) -> str:
    """The yaml that holds a word which the command line does not, where Hydra says neither."""
    if any(re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", argument) for argument in sys.argv[1:]):
        return ""
    path = origins.Yamls([config_dir, *_added_folders(sys.argv[1:])]).mentioning(word)
    return "" if path is None else f" [in {path}]"


def _added_folders(arguments: list[str]) -> list[Path]:
    """Those of ``--config-dir FOLDER`` and ``hydra.searchpath=[FOLDER]``."""
    added = words.option(arguments, "--config-dir", "-cd")
    named = [] if added is None else [added]
    lists = [a.partition("=")[2].strip("[]").split(",") for a in arguments if a.startswith("hydra.searchpath=")]
    named += [name.removeprefix("file://") for names in lists for name in names]
    return [Path(name) for name in named if Path(name).is_dir()]


def _known_keys(config_dir: Path, config_name: str) -> list[str]:
    """Every group, and every dotted key of the config with the groups chosen on the command line."""
    pairs = [argument.partition("=") for argument in sys.argv[1:]]
    chosen = [f"{key}={value}" for key, _, value in pairs if (config_dir / key / f"{value}.yaml").is_file()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        cfg = compose(config_name, overrides=chosen)
    groups = [path.name for path in config_dir.iterdir() if path.is_dir()]
    keys = flat(OmegaConf.to_container(cfg, resolve=False))
    return groups + [key for key in keys if not key.startswith(("derived.", "expected."))]


def _stop(error: Exception, line: str) -> None:
    if os.environ.get("LITDIFFUSION_TRACEBACK"):
        raise error
    print(f"error: {line}", file=sys.stderr)
    sys.exit(FAILED if isinstance(error, TrainingError) else BAD_INPUT)


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)
