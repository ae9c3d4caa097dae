"""Checks of the items of a batch."""

from litdiffusion.data.loaders import Sliceable
from litdiffusion.errors import UserError


def check_not_empty(items: Sliceable, name: str) -> None:
    """Refuses a batch without items; ``name`` is the batch's name in the message."""
    if not len(items):
        raise UserError(f"{name} is empty; let the loader leave it out, or return at least one item")


def check_shape(items: Sliceable, shape: tuple[int, ...], name: str) -> None:
    """Refuses items of another shape than the model's."""
    if items.shape[1:] != shape:
        raise UserError(
            f"{name} has items of shape {tuple(items.shape[1:])}, but the model takes {shape}; give all items one "
            f"shape in the data set or its transform"
        )
