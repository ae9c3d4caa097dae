"""Errors that are reported in one line, without a traceback."""

from collections.abc import Sequence
from difflib import get_close_matches

NAMES_SHOWN = 12
"""How many class names a message lists."""


class UserError(ValueError):
    """A mistake in the input: one line with what is wrong, the allowed range and the remedy."""


class TrainingError(RuntimeError):
    """A run that cannot continue (e.g. a non-finite loss): one line with the step, the reason and what was kept."""


class ProcessLost(TrainingError):
    """Another process of the run ended, so that nothing can be exchanged any more."""


class Pruned(Exception):
    """A search ended this trial early. The trial has not failed, and it is not continued."""

    def __init__(self, metric: str, value: float, step: int):
        super().__init__(f"given up by the search at step {step}, where {metric} was {value:.4g}")
        self.metric, self.value, self.step = metric, value, step


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the CPU's allocator, had no memory left."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's class name if the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def nearest(word: str, known: list[str]) -> str:
    """The hint "; did you mean X?" if a known word is similar to ``word``, else an empty string."""
    folded = {name.lower(): name for name in reversed(known)}
    close = get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def listed(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
