"""Solves ordinary differential equations to given tolerances, by torchdiffeq."""

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
    """The solution of ``dy / ds = slope(s, y)`` with ``y(at[0]) = start``, at every s of ``at`` (n,).

    Args:
        slope: returns dy / ds, shaped like y.
        start: y at the first s: a tensor (B, ...), or a tuple of such tensors.
        at: values of s, rising or falling; the solver never steps beyond the last one.
        rtol: tolerated relative error of a step, root mean square over the batch.
        atol: tolerated absolute error of a step, root mean square over the batch.
        method: name of an adaptive method of torchdiffeq.
        remedy: what the error message suggests if the solution fails.

    Raises:
        UserError: if the equation cannot be solved to the tolerances in 1000 steps.

    Source: Chen, "torchdiffeq", 2018.
    """
    from torchdiffeq import odeint  # imported here because it takes half a second (scipy)

    # A step beyond the end would evaluate levels that a schedule does not have.
    options = {"step_t": at[-1:], "max_num_steps": MOST_STEPS}
    try:
        return odeint(slope, start, at, rtol=rtol, atol=atol, method=method, options=options)
    except AssertionError as error:  # torchdiffeq's report of a failure
        raise UserError(
            f"the flow cannot be solved to rtol={rtol:g}, atol={atol:g} ({str(error)[:80]}); loosen them, or {remedy}"
        ) from error
