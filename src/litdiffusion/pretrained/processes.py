"""The processes that a script draws samples on: one, or several, started by Lightning's Fabric or by ``torchrun``."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from litdiffusion.errors import UserError, first_line
from litdiffusion.pretrained.outputs import device_for


@dataclass(frozen=True)
class Processes:
    """Place of this process among ``world`` of them: its number ``rank``, from 0, and its device."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Runs the block in the first process, then in the others, which find the files that the first one made."""
        if not self.is_first:
            torch.distributed.barrier()
        yield
        if self.is_first and self.world > 1:
            torch.distributed.barrier()

    def map(self, work: Callable[[Any], Tensor], jobs: Sequence[Any]) -> list[Tensor] | None:
        """The tensors ``work(job)`` of all jobs in their order, in the first process; None in the others.

        Job k is done by process k mod ``world``. Each tensor is moved to the CPU.
        """
        done: list[Tensor] = []
        for start in range(0, len(jobs), self.world):
            mine = start + self.rank
            result = work(jobs[mine]).cpu() if mine < len(jobs) else None
            done += self._gathered(result)
        return done if self.is_first else None

    def _gathered(self, result: Tensor | None) -> list[Tensor]:
        if self.world == 1:
            return [result]
        found: list[Tensor | None] | None = [None] * self.world if self.is_first else None
        torch.distributed.gather_object(result, found)
        return [part for part in found or () if part is not None]


@contextlib.contextmanager
def processes(device: str, devices: int | str = 1, num_nodes: int = 1) -> Iterator[Processes]:
    """The processes of a script.

    All but the first print nothing. Each must do the same work in the same order.

    Args:
        device: "auto", or the name of a kind of device such as "cpu" or "cuda"; one process may name one, "cuda:1".
        devices: number of processes on this machine; "auto": one for each accelerator. Lightning's Fabric starts them.
            Those that ``torchrun`` or Slurm has started are found.
        num_nodes: number of machines.

    Raises:
        UserError: devices that are not there, or a number that does not fit what ``torchrun`` started.
    """
    started = torch.distributed.is_torchelastic_launched()
    if devices == 1 and num_nodes == 1 and not started:
        yield Processes(device_for(device))
        return
    from lightning import Fabric  # here, because one process does not need it
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    kind = device if device == "auto" else device_for(device).type
    if started and devices == 1:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    try:
        fabric = Fabric(accelerator=kind, devices=devices, num_nodes=num_nodes, strategy="ddp")
        fabric.launch()
    except (MisconfigurationException, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"devices={devices} num_nodes={num_nodes} on device={device}: {first_line(error)}; take devices=1, or as "
            f"many as there are"
        ) from error
    here = Processes(fabric.device, fabric.global_rank, fabric.world_size)
    with contextlib.nullcontext() if here.is_first else contextlib.redirect_stdout(io.StringIO()):
        yield here
    torch.distributed.destroy_process_group()
