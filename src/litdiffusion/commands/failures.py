"""What failed, in one line: the machine, the data, Lightning, or another process. Imports no torch."""

import errno
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from litdiffusion.errors import ProcessLost, Pruned, TrainingError, UserError, first_line, is_out_of_memory

if TYPE_CHECKING:
    import lightning as L

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "cannot be written ({}); free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "cannot be read or written ({}); change its permissions"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "cannot be written ({}); move it away"),
    **dict.fromkeys((errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG), "cannot be written ({}); move it away"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "cannot be opened ({}); allow more open files: ulimit -n 4096"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV), "cannot be read or written ({}); check the disk"),
}
"""What to do about an error of the file system, by its number."""
CONNECTION_LOST = re.compile(r"closed by peer|connection reset|gloo|nccl|socket|broken pipe|timed out", re.IGNORECASE)
LOADING = ("torch.utils.data", "lightning.pytorch.utilities.combined_loader", "litdiffusion.data.facts")
"""Modules through which every item of the data passes: an error raised below them is one of the data."""
_PACKAGE, _STDLIB = Path(__file__).parent.parent, sysconfig.get_paths()["stdlib"]
_FRAME = re.compile(r'File "(.+)", line (\d+), in (.+)')


@contextmanager
def errors_in_words(trainer: "L.Trainer", first_step: int = 0) -> Iterator[None]:
    """Puts what Lightning or the data refuse into one line: bad input before the first step, then a failed training."""
    try:
        yield
    except (Pruned, TrainingError):
        raise
    except Exception as error:
        line = lightning_refusal(error) or data_failure(error)
        if line is None and not isinstance(error, UserError):
            raise
        kind = TrainingError if trainer.global_step > first_step else UserError
        raise kind(line or str(error)) from error


def known_failure(error: Exception, world_size: int) -> TrainingError | None:
    """A one-line error for a failure of the machine or the training; None for a bug of the program."""
    if isinstance(error, TrainingError):
        return error
    if line := told(error):
        return TrainingError(line)
    if world_size > 1 and isinstance(error, RuntimeError) and CONNECTION_LOST.search(str(error)):
        reason = first_line(error)[:120]
        return ProcessLost(
            f"another process of this run ended or cannot be reached ({reason}); its own output may say why"
        )
    return None


def told(error: Exception) -> str | None:
    """One line for an error of the data, of the file system or of memory; None for another error."""
    return data_failure(error) or file_failure(error) or memory_failure(error)


def memory_failure(error: Exception) -> str | None:
    """The remedy of a device without memory; None for another error."""
    reason = first_line(error)[:120]
    return f"memory is used up ({reason}); take a smaller batch_size" if is_out_of_memory(error) else None


def file_failure(error: Exception) -> str | None:
    """The file, the reason and the remedy of an error of the file system; None for another error."""
    remedy = REMEDIES.get(error.errno) if isinstance(error, OSError) else None
    return remedy and f"{error.filename or 'a file'} {remedy.format(error.strerror)}"


def data_failure(error: Exception) -> str | None:
    """Type, message and place of an error that a loader, a data set or its transform raised; None for another error.

    A loader's worker puts its traceback into the message.
    """
    frames = [(frame.f_globals.get("__name__", ""), frame.f_code, line) for frame, line in _walk(error)]
    if not any(name.startswith(LOADING) for name, _, _ in frames):
        return None
    text, places = first_line(error), _FRAME.findall(str(error))
    if places:
        text = _message_after_traceback(str(error).strip(), type(error).__name__)
    if isinstance(error, UserError | TrainingError):
        return text
    places = places or [(code.co_filename, line, code.co_name) for _, code, line in frames]
    path, line, function = ([place for place in places if not _is_library(place[0])] or places)[-1]
    return (
        f"the data cannot be loaded: {type(error).__name__}: {text} ({path}:{line}, in {function}); mend that place or "
        f"that item (LITDIFFUSION_TRACEBACK=1 shows the traceback)"
    )


def lightning_refusal(error: Exception) -> str | None:
    """The message of an error that Lightning raised, on one line; None for an error raised elsewhere."""
    frames = _walk(error)
    where = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return " ".join(str(error).split()) if where.startswith("lightning.") else None


def _walk(error: Exception) -> list:
    return list(traceback.walk_tb(error.__traceback__))


def _is_library(path: str) -> bool:
    """Whether a file is not the user's own."""
    return "site-packages" in path or Path(path).is_relative_to(_PACKAGE) or Path(path).is_relative_to(_STDLIB)


def _message_after_traceback(text: str, kind: str) -> str:
    """The first line of the message that ends a traceback in a text."""
    lines = [line for line in text.splitlines() if line.split(":")[0].split(".")[-1] == kind]
    return lines[-1].partition(": ")[2] if lines else text.splitlines()[-1]
