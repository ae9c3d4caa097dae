"""The one exception that stands for bad input: shown to the user as one line, without a traceback."""


class UserError(ValueError):
    """What is wrong, the allowed range and the remedy, in one line that a user can act on."""


class TrainingError(RuntimeError):
    """A run that cannot go on (a non-finite loss, say): one line with the step, the reason and what was kept."""
