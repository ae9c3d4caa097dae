"""The command line around Hydra: every error of the user's becomes one line and exit status 2. Imports no torch."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litdiffusion.errors import TrainingError, UserError, nearest

BAD_INPUT, FAILED = 2, 1
_STARTED: list[bool] = []

# At import: Hydra resolves its output folder before any of our code runs. The process id keeps apart two runs that
# start in the same second.
OmegaConf.register_new_resolver("pid", os.getpid, replace=True)


def run(main: Callable[[], None], config_dir: Path, config_name: str) -> None:
    """Runs a Hydra main; bad input ends in one line on stderr and status 2, a failed run in one line and status 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    warnings.showwarning = _one_line_warning
    _STARTED.clear()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(config_dir, config_name))
        return
    try:
        main()
    except (UserError, TrainingError) as error:
        _stop(error, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _stop(error, explain(error, config_dir, config_name))
    except OSError as error:
        if _STARTED:
            raise
        # Hydra makes the output folder before any of our code runs.
        _stop(error, f"{error.filename} cannot be written ({error.strerror}); set hydra.run.dir=FOLDER")


def help_text(config_dir: Path, config_name: str) -> str:
    """The config's own help; Hydra's way to the same text takes three times as long, for listing the groups twice."""
    cfg = OmegaConf.load(config_dir / f"{config_name}.yaml")
    groups = [
        f"{group.name}: {', '.join(sorted(choice.stem for choice in group.glob('*.yaml')))}"
        for group in sorted(path for path in config_dir.iterdir() if path.is_dir())
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
    except (UserError, TrainingError) as error:
        if not multirun:
            _stop(error, str(error))
        print(f"error in this job: {error}", file=sys.stderr)
        raise


def explain(error: Exception, config_dir: Path, config_name: str) -> str:
    """A composition error of Hydra's in one line, with the nearest known name."""
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"{group}={choice} is not known{nearest(choice, options)} ({group} is one of {', '.join(options)})"
    unknown = re.search(r"(?:Could not override|No match in the defaults list.*) '(.+?)'", text)
    if unknown:
        key = unknown.group(1)
        hint = nearest(key, _known_keys(config_dir, config_name))
        return f"there is no group or key {key}{hint} (see --help, --cfg job)"
    return " ".join(line.strip() for line in text.splitlines()[:2])


def _known_keys(config_dir: Path, config_name: str) -> list[str]:
    """Every group, and every dotted key of the config with the groups chosen on the command line."""
    words = [argument.partition("=") for argument in sys.argv[1:]]
    chosen = [f"{key}={value}" for key, _, value in words if (config_dir / key / f"{value}.yaml").is_file()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        cfg = compose(config_name, overrides=chosen)
    groups = [path.name for path in config_dir.iterdir() if path.is_dir()]
    return groups + list(_flatten(OmegaConf.to_container(cfg, resolve=False)))


def _flatten(node: dict, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")


def _stop(error: Exception, line: str) -> None:
    if os.environ.get("LITDIFFUSION_TRACEBACK"):
        raise error
    print(f"error: {line}", file=sys.stderr)
    sys.exit(FAILED if isinstance(error, TrainingError) else BAD_INPUT)


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)
