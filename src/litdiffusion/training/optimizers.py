"""Optimizers of a network's weights: AdamW, and Muon with AdamW; a config names any other one by ``_target_``."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from litdiffusion.errors import UserError
from litdiffusion.training.muon import Muon, evaluated

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class NetAdamW(AdamW):
    """AdamW without weight decay over all weights of the net."""

    def __init__(self, net: nn.Module, lr: float = 1e-3):
        super().__init__(net.parameters(), lr, weight_decay=0.0, fused=True)


class CombinedOptimizer(Optimizer):
    """Several optimizers of different weights as one, with one step, one state and the parameter groups of all.

    Learning-rate schedules, clipping and checkpoints see a single optimizer.
    """

    def __init__(self, *parts: Optimizer):
        self.parts: Sequence[Optimizer] = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share_state()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Steps every part; the closure is called once, before the first part."""
        loss = evaluated(closure)
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share_state()

    def _share_state(self) -> None:
        """Gives the parts the groups and state of the whole, because torch replaces both when it loads them."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


class MuonAdamW(CombinedOptimizer):
    """Muon for the hidden matrices of the net, AdamW for all other weights, as one optimizer.

    Hidden matrices are the weights of all linear layers and convolutions except the net's first and last one, which
    read the input and write the output. Muon's step has the size of AdamW's, so both use one learning rate.

    Raises:
        UserError: a net without hidden matrices.

    Source: see `Muon`.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float = 3e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ):
        hidden, others = _hidden_and_other_weights(net)
        settings = {"lr": lr, "weight_decay": weight_decay}
        super().__init__(
            Muon(hidden, momentum=momentum, **settings),
            AdamW(others, betas=tuple(betas), **settings),
        )


def _hidden_and_other_weights(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    matrices = [layer.weight for layer in net.modules() if isinstance(layer, LAYERS) and layer.weight.requires_grad]
    hidden = matrices[1:-1]
    if not hidden:
        raise UserError(
            f"optimizer=muon is for hidden matrices, and this net has {len(matrices)} linear layers and convolutions, "
            f"the first and the last of which do not count; take optimizer=adamw"
        )
    chosen = {id(weight) for weight in hidden}
    return hidden, [weight for weight in net.parameters() if id(weight) not in chosen and weight.requires_grad]
