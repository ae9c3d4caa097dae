"""What the sizes of any network must be; an error names the key of ``model`` and the range."""

from collections.abc import Sequence

from litdiffusion.errors import UserError


def check_widths(channels: Sequence[int]) -> None:
    """Refuses a list ``channels`` that is empty or holds anything but whole numbers of at least 1."""
    widths = list(channels)
    if not widths or not all(isinstance(width, int) and width >= 1 for width in widths):
        raise UserError(f"model.channels must be the width of each level, such as [32,64], got {widths}")


def check_sizes(**sizes: int) -> None:
    """Refuses a size, by its name, that is not a whole number of at least 1."""
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise UserError(f"model.{name} must be a whole number of at least 1, got {value}")


def check_dropout(dropout: float) -> None:
    """Refuses a share outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise UserError(f"model.dropout must lie in [0, 1), got {dropout}")
