"""Ordinary differential equations within tolerances, by torchdiffeq."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from litdiffusion.errors import UserError

MOST_STEPS = 1000


@torch.no_grad()
def solve(
    slope: Callable[[Tensor, Any], Any], start: Any, at: Tensor, rtol: float, atol: float, method: str, remedy: str
) -> Any:
    """The solution of ``dy / ds = slope(s, y)`` at every ``at`` (n,), the first of which is where ``start`` stands.

    Args:
        slope: of a tensor or of a tuple of tensors, shaped like it.
        start: y (B, ...), or a tuple of such.
        at: rising or falling; the solver never steps past the last of them.
        rtol: tolerated relative error of a step, the root mean square over the batch.
        atol: tolerated absolute error, likewise.
        method: an adaptive one of torchdiffeq.
        remedy: what a user may do where that fails.

    Raises:
        UserError: an equation that cannot be solved to the tolerances in 1000 steps.

    Source: Chen, "torchdiffeq", 2018.
    """
    from torchdiffeq import odeint  # half a second, for scipy

    # A step past the end would ask for levels that a schedule does not have.
    options = {"step_t": at[-1:], "max_num_steps": MOST_STEPS}
    try:
        return odeint(slope, start, at, rtol=rtol, atol=atol, method=method, options=options)
    except AssertionError as error:  # how torchdiffeq gives up
        raise UserError(
            f"the flow cannot be solved to rtol={rtol:g}, atol={atol:g} ({str(error)[:80]}); loosen them, or {remedy}"
        ) from error
