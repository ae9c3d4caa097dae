"""The command line around Hydra: every error of the user's becomes one line and exit status 2. Imports no torch."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from string import Template

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litdiffusion import origins, sweeps
from litdiffusion.errors import TrainingError, UserError, nearest
from litdiffusion.runs import FILE as RECORD
from litdiffusion.runs import fresh_folder

BAD_INPUT, FAILED = 2, 1
STOPPED = (130, 143)
"""Exit statuses after Ctrl-C and SIGTERM."""
DRY = ("hydra.output_subdir=null", "hydra/job_logging=none")
"""For a dry run: Hydra then writes nothing into the folder that it makes."""
EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "slurm", "ray": "ray"}
"""What brings Hydra's launchers."""
_STARTED: list[bool] = []

# At import: Hydra resolves its output folder before any of our code runs. The process id keeps apart two runs that
# start in the same second.
OmegaConf.register_new_resolver("pid", os.getpid, replace=True)
_FOLDERS: dict[str, Path] = {}


def _run_folder(name: str | None, resume: bool, unnamed: str) -> str:
    """Of a run: that of its name, with ``resume=false`` a new one beside it; without a name ``unnamed``."""
    if name is None:
        return unnamed
    if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", str(name)):
        raise UserError(f"name={name!r} must consist of letters, digits and . + - _, for it names a folder of outputs")
    folder = Path("outputs") / str(name)
    # Hydra asks more than once, also when the folder is there already.
    return str(folder if resume else _FOLDERS.setdefault(str(name), fresh_folder(folder)))


def _run_subdir(folder: str) -> str:
    """For Hydra's own files: what an earlier attempt at the run was started with is not overwritten."""
    if not (Path(folder) / RECORD).exists():
        return ".hydra"
    count = sum(1 for path in Path(folder, ".hydra").glob("attempt_*"))
    return f".hydra/attempt_{count + 2}"


OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
OmegaConf.register_new_resolver("run_subdir", _run_subdir, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweeps.sweep_folder, replace=True)
OmegaConf.register_new_resolver("job_subdir", sweeps.job_subdir, replace=True)
OmegaConf.register_new_resolver("job_folder", sweeps.job_folder, replace=True)


def run(main: Callable[[], None], config_dir: Path, config_name: str) -> None:
    """Runs a Hydra main; bad input ends in one line on stderr and status 2, a failed run in one line and status 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    warnings.showwarning = _one_line_warning
    _STARTED.clear()
    _FOLDERS.clear()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(config_dir, config_name))
        return
    if "dry_run=true" in (argument.lower() for argument in sys.argv[1:]):
        sys.argv += DRY
    with _sweep_told():
        _run(main, config_dir, config_name)


def _run(main: Callable[[], None], config_dir: Path, config_name: str) -> None:
    try:
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
    """Refuses keys of this job's config that no part reads, see `origins.check_keys`."""
    primary = OmegaConf.to_container(OmegaConf.load(config_dir / f"{config_name}.yaml"), resolve=False)
    origins.check_keys(cfg, primary, origins.Yamls.of_this_job())


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
    unknown = re.search(r"(?:Could not override|No match in the defaults list.*) '(.+?)'", text)
    if unknown:
        key = unknown.group(1)
        hint = nearest(key, _known_keys(config_dir, config_name))
        return f"there is no group or key {key}{hint} (see --help, --cfg job){_named_in(key, config_dir)}"
    return " ".join(line.strip() for line in text.splitlines()[:2])


def _named_in(word: str, config_dir: Path) -> str:
    """The yaml that holds a word which the command line does not, where Hydra says neither."""
    if any(re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", argument) for argument in sys.argv[1:]):
        return ""
    path = origins.Yamls([config_dir, *_added_folders(sys.argv[1:])]).mentioning(word)
    return "" if path is None else f" [in {path}]"


def _added_folders(arguments: list[str]) -> list[Path]:
    """Those of ``--config-dir FOLDER`` and ``hydra.searchpath=[FOLDER]``."""
    named = [b for a, b in pairwise(arguments) if a in ("--config-dir", "-cd")]
    named += [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    lists = [a.partition("=")[2].strip("[]").split(",") for a in arguments if a.startswith("hydra.searchpath=")]
    named += [name.removeprefix("file://") for names in lists for name in names]
    return [Path(name) for name in named if Path(name).is_dir()]


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
