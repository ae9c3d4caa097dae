"""Fully sharded training (torch's FSDP by Lightning's ``FSDPStrategy``) of a denoiser's net and of its average.

Each of the two nets is an FSDP unit of its own. Both are divided over the processes in the same way, so the average
follows the weights shard by shard. Everything else of the module (schedule, codec) is whole in every process.
"""

from functools import partial
from typing import Any

import lightning as L
import torch
import torch.distributed
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import ShardingStrategy

from litdiffusion.errors import UserError


def is_sharded(trainer: L.Trainer) -> bool:
    """Whether the trainer divides the weights over the processes."""
    return isinstance(trainer.strategy, FSDPStrategy)


def shard(module: L.LightningModule) -> None:
    """Tells Lightning to make FSDP units of the nets of ``module.trained`` and of its average, in ``configure_model``.

    A policy that the user has given the strategy divides them further. The codec stays whole.

    Raises:
        UserError: a module whose network is not called by its ``forward`` alone.
    """
    nets = [getattr(denoiser, "net", None) for denoiser in (module.trained, module.ema.model)]
    if not all(isinstance(net, nn.Module) for net in nets):
        raise UserError("trainer=fsdp shards the net of a denoiser, and an autoencoder has none; take trainer=ddp")
    strategy = module.trainer.strategy
    module.to(strategy.root_device)  # because FSDP moves its units only
    further = strategy.kwargs.get("auto_wrap_policy")
    strategy.kwargs["auto_wrap_policy"] = partial(_is_unit, nets=nets, further=further)
    strategy.kwargs["ignored_states"] = list(module.codec.parameters())


def _is_unit(module: nn.Module, recurse: bool, nonwrapped_numel: int, nets: list[nn.Module], further: Any) -> bool:
    """FSDP's policy: whether to look into a module (``recurse``), or else to make a unit of it."""
    if recurse or any(module is net for net in nets):
        return True
    inside = further is not None and any(module is part for net in nets for part in net.modules())
    return inside and further(module=module, recurse=False, nonwrapped_numel=nonwrapped_numel)


def total_norm(norm: Tensor, trained: nn.Module) -> Tensor:
    """The norm of all gradients from ``norm``, that of the shards of this process."""
    net = trained.net
    if net.sharding_strategy == ShardingStrategy.NO_SHARD:
        return norm
    squared = norm.to(next(net.parameters()).device).square()
    torch.distributed.all_reduce(squared, group=net.process_group)
    return squared.sqrt()


def make_plain(state_dict: dict[str, Tensor]) -> None:
    """Removes the attributes that FSDP leaves on gathered tensors, which `read_checkpoint` would refuse to load."""
    for name, value in state_dict.items():
        state_dict[name] = value.detach()
