"""The command line around Hydra: bad input ends in one line and exit status 2. Imports no torch."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from litdiffusion import sweeps
from litdiffusion.commands.explaining import explain, help_text, one_line
from litdiffusion.commands.failures import file_failure, told
from litdiffusion.config import origins, resolvers, secrets, words
from litdiffusion.config.environment import read_numbers
from litdiffusion.config.launched import meet_local_tasks, rank
from litdiffusion.config.public import remember_secrets
from litdiffusion.config.secrets import masked_text
from litdiffusion.config.yamls import Yamls
from litdiffusion.errors import TrainingError, UserError, first_line

BAD_INPUT, FAILED = 2, 1
STOPPED = (130, 143)
"""Exit statuses after Ctrl-C and SIGTERM."""
_JOB_STARTED: list[bool] = []
_BEFORE: list[str] = []
"""The words of this process's command line that stand before the overrides: a command's name."""


def run(
    main: Callable[[], None], config_dir: Path, config_name: str, typed: str = "", before: Sequence[str] = ()
) -> None:
    """Runs a Hydra main. Bad input ends in one line on stderr and status 2, a failed run in one line and status 1.

    ``typed`` is how its help calls it. ``before`` stands before the arguments in ``sys.argv`` while a job runs.
    """
    _BEFORE[:] = before
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    warnings.showwarning = _one_line_warning
    sys.excepthook = _masked_traceback
    _JOB_STARTED.clear()
    resolvers.forget_folders()
    secrets.forget()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(config_dir, config_name, typed))
        return
    with redirect_stdout(_Masked(sys.stdout)), redirect_stderr(_Masked(sys.stderr)), _sweep_table_at_end():
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
    except ValueError as error:  # Hydra's own, e.g. for options that exclude each other, or for its log file
        if _JOB_STARTED:
            raise
        cause = file_failure(error.__cause__) if error.__cause__ else None
        _exit_with(error, cause or one_line(error))


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
def job(cfg: DictConfig, multirun: bool = False) -> Iterator[None]:
    """A Hydra job: reads numbers from the environment into ``cfg``, and prints an error in one line without secrets.

    After an error a single run exits, and a multirun runs its other jobs.
    """
    _JOB_STARTED.append(True)
    meet_local_tasks()
    _log_once()
    remember_secrets(cfg)
    read_numbers(cfg)
    try:
        with _whole_command_line():
            yield
    except Exception as error:
        line = _error_line(error)
        if line is None:
            raise
        if not multirun:
            _exit_with(error, line)
        print(f"error in this job: {masked_text(line)}", file=sys.stderr)
        raise


@contextmanager
def _whole_command_line() -> Iterator[None]:
    """``sys.argv`` as typed, from which Lightning starts other processes and dashboards read the command."""
    sys.argv[1:1] = _BEFORE
    try:
        yield
    finally:
        del sys.argv[1 : 1 + len(_BEFORE)]


def _log_once() -> None:
    """Keeps Hydra's log file to the first of the processes that were started together; the others only print."""
    root = logging.getLogger()
    for handler in list(root.handlers) if rank() > 0 else ():
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)


def _error_line(error: Exception) -> str | None:
    """The message of an error inside a job, with the yaml that sets the key in the message; None for a bug."""
    if not isinstance(error, UserError | TrainingError | OmegaConfBaseException):
        return told(error)
    text = str(error)
    if isinstance(error, OmegaConfBaseException):
        reason = first_line(error)
        text = f"{error.full_key}: {reason}" if getattr(error, "full_key", None) else reason
    return origins.in_file(text, Yamls.of_this_job()) if HydraConfig.initialized() else text


def _exit_with(error: Exception, line: str) -> None:
    if os.environ.get("LITDIFFUSION_TRACEBACK"):
        raise error
    print(f"error: {masked_text(line)}", file=sys.stderr)
    sys.exit(FAILED if isinstance(error, TrainingError) else BAD_INPUT)


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {masked_text(str(message))}", file=sys.stderr)


def _masked_traceback(kind, error, trace) -> None:
    print(masked_text("".join(traceback.format_exception(error))), end="", file=sys.stderr)


class _Masked:
    """A stream whose text is masked, because Hydra and argparse repeat the command line on their own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(masked_text(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
