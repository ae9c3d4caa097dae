"""How large the net of a checkpoint would be, known before it takes any memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from litdiffusion.errors import UserError

SPARE_BYTES, SPARE_TENSORS = 64 * 2**20, 1000
"""Room for tables that are part of a net but not of its file."""


class TooLarge(UserError):
    """A net that is larger than its file."""


def check_size(make_net: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> None:
    """Refuses a net that is much larger than the weights in the file, see `limited_by`.

    The net is made on the meta device, where weights take no memory. A net that cannot be made there is only looked at
    when it is made in earnest.

    Args:
        make_net: makes the net.
        state: the file's tensors, by name.

    Raises:
        UserError: the file's config describes a larger net than its weights.
    """
    try:
        with limited_by(state), torch.device("meta"), torch.random.fork_rng(devices=[]):
            make_net()
    except TooLarge:
        raise
    except Exception:  # nets of all kinds may fail on meta in any way
        return


@contextmanager
def limited_by(state: Mapping[str, Tensor]) -> Iterator[None]:
    """While this lasts, modules are refused whose tensors take four times the bytes of the file's, or more.

    Four times, because a net may be made in float32 for weights in bfloat16, and may replace a layer while it is made.
    """
    most_bytes = SPARE_BYTES + 4 * sum(value.nbytes for value in state.values())
    most_tensors = SPARE_TENSORS + 4 * len(state)
    seen: dict[int, Tensor] = {}  # the tensors themselves, because an id is used again after its object's end
    size = 0

    def registered(module: nn.Module, name: str, value: Any) -> None:
        nonlocal size
        if not isinstance(value, Tensor) or id(value) in seen:
            return
        seen[id(value)] = value
        size += 0 if nn.parameter.is_lazy(value) else value.nbytes
        if size > most_bytes or len(seen) > most_tensors:
            raise TooLarge("the config of this checkpoint describes a larger net than its weights; do not use the file")

    handles = [
        hooks.register_module_parameter_registration_hook(registered),
        hooks.register_module_buffer_registration_hook(registered),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
