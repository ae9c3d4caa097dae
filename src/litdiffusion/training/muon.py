"""Muon: momentum whose direction is made orthogonal, for matrices and for the kernels of convolutions."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the iteration ``X <- a X + (b G + c G²) X``, G = X Xᵀ, which sends singular values in (0, 1] to [0.7, 1.2]."""
ITERATIONS = 5
LIKE_ADAMW = 0.2
"""Root mean square of an entry of AdamW's step in units of the learning rate."""


class Muon(Optimizer):
    """``W <- (1 - lr λ) W - lr 0.2 sqrt(max(m, n)) UVᵀ``: UVᵀ the orthogonal factor of the momentum of W (m, n).

    The momentum M is the running mean of the gradients, and ``U S Vᵀ`` the singular value decomposition of Nesterov's
    ``(1 - momentum) gradient + momentum M``. UVᵀ is approximated by `orthogonalised`. The factor gives the step the
    size of AdamW's. A weight of more than two dimensions, such as a kernel (out, in, height, width), is the matrix
    (out, in * height * width).

    Args:
        params: weights of at least two dimensions, or groups of them.
        lr: learning rate.
        momentum: decay of the running mean of the gradients.
        weight_decay: λ.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the factor is that of Liu et
    al., "Muon is Scalable for LLM Training", 2025, arXiv 2502.16982, section 2.2.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = evaluated(closure)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum, lr = self.state[weight], group["momentum"], group["lr"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        direction = orthogonalised(gradient.lerp(mean, momentum).flatten(1))
        weight.mul_(1 - lr * group["weight_decay"])
        weight.add_(direction.view(weight.shape), alpha=-lr * LIKE_ADAMW * max(direction.shape) ** 0.5)


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """The loss that an optimizer's closure computes, with gradients; None without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def orthogonalised(matrix: Tensor) -> Tensor:
    """About UVᵀ of a matrix ``U S Vᵀ`` (m, n), by five Newton-Schulz iterations; zero stays zero.

    Its singular values lie in about [0.7, 1.2], which is enough for a direction. The products are in bfloat16 on a GPU,
    and in the matrix's own type on a CPU.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16) if matrix.is_cuda else matrix
    x = x.mT if matrix.shape[0] > matrix.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)
