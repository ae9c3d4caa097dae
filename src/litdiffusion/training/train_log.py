"""The training metrics in the log: the loss since the last row, by quartile of time, and the speed."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from litdiffusion.training.clock import Clock
from litdiffusion.training.joined import ALONE, Joined, gathered

SECTIONS = ("step", "data", "validation", "drawing", "quality", "likelihood")
TRAINING = ("step", "data")


class BatchLosses(Protocol):
    """A named tuple of tensors (B,), or None: what the items of a batch lose, ``value`` in all."""

    @property
    def value(self) -> Tensor: ...

    def detach(self) -> Self:
        """The same losses without gradients."""


LossesOf = TypeVar("LossesOf", bound=BatchLosses)


class TrainLog(Generic[LossesOf]):
    """Collects the losses of batches for the next row of the log; losses of a skipped step never enter a row.

    ``time/samples_per_second`` counts only the training time since the last row. ``time/step_percent`` is the share of
    the training step. ``time/data_percent`` is the share of waiting for a batch, with Lightning's loop around it. Both
    are shares of the whole time since training began.

    Args:
        clock: measures the sections of the run.
        kind: class of the losses.
    """

    def __init__(self, clock: Clock, kind: type[LossesOf]):
        self.clock, self._kind = clock, kind
        self.current: list[LossesOf] = []
        """Losses of the batches since the last optimizer step."""
        self._unlogged: list[LossesOf] = []
        self._items, self._seconds = 0, 0.0

    def add(self, losses: LossesOf) -> None:
        """Adds the losses of one batch."""
        self.current.append(losses.detach())
        self._items += len(losses.value)

    def end_step(self) -> None:
        """Keeps the losses since the last step for the next row."""
        self._unlogged += self.current
        self.current = []

    def leave_out(self, losses: Sequence[LossesOf]) -> None:
        """Keeps these losses, of a step that was skipped, out of the next row."""
        skipped = {id(each) for each in losses}
        self.current = [each for each in self.current if id(each) not in skipped]
        self._unlogged = [each for each in self._unlogged if id(each) not in skipped]

    def row(self, means: Callable[[LossesOf], dict[str, Tensor]], processes: int) -> dict[str, Tensor | float]:
        """The metrics since the last row; without a loss if all steps were skipped.

        Args:
            means: the values of losses for the row.
            processes: number of processes that train together.
        """
        losses, self._unlogged = concatenated(self._unlogged), []
        return ({} if losses is None else means(losses)) | self._speed_and_shares(processes)

    def state_dict(self, processes: int = 1) -> dict[str, Any]:
        """The losses of all processes that are not in a row yet."""
        losses = concatenated(self._unlogged)
        return {"losses": None if losses is None else [None if x is None else gathered(x, processes) for x in losses]}

    def load_state_dict(self, state: dict[str, Any], device: torch.device, place: Joined = ALONE) -> None:
        """Restores the losses of `state_dict`, of which the process at ``place`` takes its own."""
        losses = state["losses"]
        self.current = []
        own = [None if x is None else place.own(x.to(device)) for x in losses or ()]
        self._unlogged = [] if losses is None else [self._kind(*own)]

    def _speed_and_shares(self, processes: int) -> dict[str, float]:
        seconds = sum(self.clock.seconds[name] for name in TRAINING)
        spent, self._seconds = max(seconds - self._seconds, 1e-9), seconds
        items, self._items = self._items * processes, 0
        shares = {f"time/{name}_percent": 100 * self.clock.share(name) for name in SECTIONS if self.clock.seconds[name]}
        return {"time/samples_per_second": items / spent, **shares}


def concatenated(losses: list[LossesOf]) -> LossesOf | None:
    """The losses of several batches as those of one batch; None without batches."""
    if not losses:
        return None
    return type(losses[0])(*(None if field[0] is None else torch.cat(field) for field in zip(*losses, strict=True)))
