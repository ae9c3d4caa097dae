"""The command line around Hydra: bad input ends in one line and exit status 2. Imports no torch."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from litdiffusion import sweeps
from litdiffusion.commands.explaining import explain, help_text, one_line
from litdiffusion.config import origins, resolvers, words
from litdiffusion.config.yamls import Yamls
from litdiffusion.errors import TrainingError, UserError, first_line

BAD_INPUT, FAILED = 2, 1
STOPPED = (130, 143)
"""Exit statuses after Ctrl-C and SIGTERM."""
_JOB_STARTED: list[bool] = []


def run(main: Callable[[], None], config_dir: Path, config_name: str) -> None:
    """Runs a Hydra main. Bad input ends in one line on stderr and status 2, a failed run in one line and status 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    warnings.showwarning = _one_line_warning
    _JOB_STARTED.clear()
    resolvers.forget_folders()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(config_dir, config_name))
        return
    with _sweep_table_at_end():
        _run(main, config_dir, config_name)


def _run(main: Callable[[], None], config_dir: Path, config_name: str) -> None:
    try:
        # In place, because Lightning starts the other processes of a run with sys.argv.
        sys.argv[1:] = words.hydra_arguments(sys.argv[1:], Path(sys.argv[0]), config_dir, config_name)
        main()
    except (UserError, TrainingError) as error:
        _exit_with(error, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _exit_with(error, explain(error, config_dir, config_name))
    except yaml.YAMLError as error:
        _exit_with(error, f"this yaml cannot be read: {' '.join(str(error).split())}")
    except OSError as error:
        if _JOB_STARTED:
            raise
        # Hydra makes the output folder before the job starts.
        name = error.filename or "a file in the run's folder"  # write() names no file in its error
        _exit_with(error, f"{name} cannot be written ({error.strerror}); free some space, or set hydra.run.dir=FOLDER")
    except ValueError as error:  # Hydra's own, e.g. for options that exclude each other
        if _JOB_STARTED:
            raise
        _exit_with(error, one_line(error))


@contextmanager
def _sweep_table_at_end() -> Iterator[None]:
    """Prints the table of a sweep at its end, also after an error; exits with status 1 if a job is not done."""
    try:
        yield
    except KeyboardInterrupt:
        sweeps.print_table_at_end(stopped=True)
        sys.exit(STOPPED[0])
    except SystemExit as status:
        sweeps.print_table_at_end(stopped=status.code in STOPPED)
        raise
    if not sweeps.print_table_at_end(stopped=False):
        sys.exit(FAILED)


@contextmanager
def job_errors(multirun: bool) -> Iterator[None]:
    """Prints an error of a Hydra job in one line; a single run then exits, a multirun runs its other jobs."""
    _JOB_STARTED.append(True)
    try:
        yield
    except (UserError, TrainingError, OmegaConfBaseException) as error:
        line = _error_line(error)
        if not multirun:
            _exit_with(error, line)
        print(f"error in this job: {line}", file=sys.stderr)
        raise


def _error_line(error: Exception) -> str:
    """The message of an error inside a job, with the yaml that sets the key in the message."""
    text = str(error)
    if isinstance(error, OmegaConfBaseException):
        reason = first_line(error)
        text = f"{error.full_key}: {reason}" if getattr(error, "full_key", None) else reason
    return origins.in_file(text, Yamls.of_this_job()) if HydraConfig.initialized() else text


def _exit_with(error: Exception, line: str) -> None:
    if os.environ.get("LITDIFFUSION_TRACEBACK"):
        raise error
    print(f"error: {line}", file=sys.stderr)
    sys.exit(FAILED if isinstance(error, TrainingError) else BAD_INPUT)


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)
