"""What a user is told in one line, without a traceback."""

from difflib import get_close_matches


class UserError(ValueError):
    """What is wrong, the allowed range and the remedy, in one line that a user can act on."""


class TrainingError(RuntimeError):
    """A run that cannot go on (a non-finite loss, say): one line with the step, the reason and what was kept."""


class Pruned(Exception):
    """A trial that a search gives up: no failure, and nothing to go on with."""

    def __init__(self, metric: str, value: float, step: int):
        super().__init__(f"given up by the search at step {step}, where {metric} was {value:.4g}")
        self.metric, self.value, self.step = metric, value, step


def first_line(error: BaseException) -> str:
    """Of an error's message, or its kind where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def nearest(word: str, known: list[str]) -> str:
    """The hint that follows an unknown word, where a known one is close; else nothing."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
