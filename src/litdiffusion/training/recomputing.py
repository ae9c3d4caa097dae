"""Gradient checkpointing: blocks of a net are computed a second time in the backward pass instead of being kept."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from litdiffusion.errors import UserError


def with_gradient_checkpointing(net: nn.Module) -> nn.Module:
    """The net, whose blocks (see `blocks_of`) keep only their input for the backward pass; changed in place.

    Memory of a step falls from that of all activations to that of one block and of the inputs of all; a step costs
    about one more forward pass. Values and gradients are the same. Names in checkpoints do not change.

    Raises:
        UserError: a net without blocks.

    Source: Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv 1604.06174.
    """
    own = [part for part in net.modules() if hasattr(part, "enable_gradient_checkpointing")]
    for part in own:
        part.enable_gradient_checkpointing()  # the name of diffusers and transformers
    blocks = [] if own else list(blocks_of(net))
    if not own and not blocks:
        raise UserError(
            f"gradient_checkpointing=true needs a net with an nn.ModuleList of blocks, {type(net).__name__} has none; "
            f"leave it out"
        )
    for block in blocks:
        block.forward = partial(_recomputed, type(block).forward, block)  # a copy of the net calls its own block
    return net


def blocks_of(net: nn.Module) -> Iterator[nn.Module]:
    """The members of the net's ``nn.ModuleList``s, of nested lists the innermost; nothing inside a member."""
    for child in net.children():
        if isinstance(net, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from blocks_of(child)


def _recomputed(forward: Any, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if torch.is_grad_enabled():
        return checkpoint(forward, block, *args, use_reentrant=False, **kwargs)
    return forward(block, *args, **kwargs)
