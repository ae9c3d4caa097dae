"""Optimizer and learning-rate schedule from the config: torch's or a user's own, by ``_target_``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from litdiffusion.config.make import make
from litdiffusion.errors import UserError


def make_optimizer(node: DictConfig, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of all weights; a target may take the ``net`` or its ``named_parameters`` instead of ``params``."""
    return make(
        node, "optimizer", net=net, params=list(net.parameters()), named_parameters=list(net.named_parameters())
    )


def lr_schedule_maker(cfg: DictConfig) -> Callable[[torch.optim.Optimizer, float], Any] | None:
    """The function that makes `DiffusionModule` its schedule; None without ``lr_schedule`` in the config."""
    return partial(make_lr_schedule, cfg.lr_schedule) if cfg.get("lr_schedule") else None


def make_lr_schedule(node: DictConfig, optimizer: torch.optim.Optimizer, steps: float) -> Any:
    """A scheduler that advances after every step, or Lightning's dictionary with a ``scheduler``.

    A scheduler that advances after every step receives the run's length as ``total_steps`` or ``T_max``.
    """
    length = {"total_steps": steps, "T_max": steps}
    if "scheduler" not in node:
        scheduler = make(node, "lr_schedule", optimizer=optimizer, **({} if "epochs" in node else length))
        _check_monitored(scheduler)
        return scheduler
    settings = OmegaConf.to_container(node, resolve=True)
    by_step = settings.get("interval") == "step" and "epochs" not in node.scheduler
    scheduler = make(node.scheduler, "lr_schedule.scheduler", optimizer=optimizer, **(length if by_step else {}))
    if "monitor" not in settings:
        _check_monitored(scheduler)
    return {**settings, "scheduler": scheduler}


def check_optimizer(cfg: DictConfig, net: nn.Module, steps: float) -> None:
    """Makes optimizer and schedule once and takes a step of a small layer, because some errors appear only then.

    Raises:
        UserError: names the part and repeats its message.
    """
    part = "optimizer"
    try:
        optimizer = make_optimizer(cfg.optimizer, net)
        state_per_weight(partial(make_optimizer, cfg.optimizer))
        part = "lr_schedule"
        if maker := lr_schedule_maker(cfg):
            maker(optimizer, steps)
    except UserError:
        raise
    except Exception as error:  # constructors may raise any kind of exception
        raise UserError(f"{part}: {' '.join(str(error).split())}; see conf/{part} for values that fit") from error


def state_per_weight(optimizer: Callable[[nn.Module], torch.optim.Optimizer]) -> float:
    """How many numbers an optimizer keeps per weight (Adam 2, plain SGD 0), measured by one step of 32 x 32 weights.

    An optimizer that cannot be made for a single layer counts as Adam.
    """
    net = nn.Linear(32, 32, bias=False)
    weight = net.weight
    weight.grad = torch.ones_like(weight)
    try:
        trial = optimizer(net)
    except Exception:
        return 2.0
    trial.step(lambda: weight.sum())  # some optimizers (LBFGS) need a closure
    tensors = [value for value in trial.state[weight].values() if isinstance(value, Tensor) and value.numel() > 1]
    return sum(tensor.numel() for tensor in tensors) / weight.numel()


def _check_monitored(scheduler: Any) -> None:
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise UserError(
            "lr_schedule: ReduceLROnPlateau needs a number to monitor, in Lightning's form: "
            "lr_schedule={scheduler: {_target_: ...ReduceLROnPlateau}, monitor: val/loss, interval: epoch}"
        )
