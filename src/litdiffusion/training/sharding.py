"""Fully sharded training (torch's FSDP by Lightning's ``FSDPStrategy``) of a denoiser's net and of its average.

Each of the two nets is an FSDP unit of its own. Both are divided over the processes in the same way, so the average
follows the weights shard by shard. Everything else of the module (schedule, codec) is whole in every process.
"""

import lightning as L
import torch
import torch.distributed
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp.wrap import wrap

from litdiffusion.errors import UserError


def is_sharded(trainer: L.Trainer) -> bool:
    """Whether the trainer divides the weights over the processes."""
    return isinstance(trainer.strategy, FSDPStrategy)


def shard(module: L.LightningModule) -> None:
    """Makes FSDP units of the nets of ``module.trained`` and of its average, in Lightning's ``configure_model``.

    Raises:
        UserError: a module whose network is not called by its ``forward`` alone.
    """
    trained, average = module.trained, module.ema.model
    if not isinstance(getattr(trained, "net", None), nn.Module):
        raise UserError("trainer=fsdp shards the net of a denoiser, and an autoencoder has none; take trainer=ddp")
    if isinstance(trained.net, FullyShardedDataParallel):
        return  # a second fit of the same module
    device = module.trainer.strategy.root_device
    module.to(device)  # because FSDP moves its units only
    trained.net, average.net = (wrap(net, device_id=device) for net in (trained.net, average.net))


def total_norm(norm: Tensor, trained: nn.Module) -> Tensor:
    """The norm of all gradients from ``norm``, that of the shards of this process."""
    net = trained.net
    if net.sharding_strategy == ShardingStrategy.NO_SHARD:
        return norm
    squared = norm.to(next(net.parameters()).device).square()
    torch.distributed.all_reduce(squared, group=net.process_group)
    return squared.sqrt()
