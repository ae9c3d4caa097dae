"""From a config node to an object, with errors that name the key and the remedy."""

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from litdiffusion.errors import UserError, nearest

_SPECIAL = {"_target_", "_partial_", "_convert_", "_args_", "_recursive_"}


def make(node: DictConfig, path: str, **context: Any) -> Any:
    """The object that ``node`` describes; of ``context`` it gets the arguments that its target names.

    Args:
        node: a config with ``_target_`` and that target's arguments.
        path: where the node stands in the config, for messages.
        context: objects built before, such as the schedule.

    Raises:
        UserError: an unknown target or argument, a value of the wrong type, or whatever the constructor refuses.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    target = _check(plain, path)
    accepted = inspect.signature(target).parameters
    wanted = {name: value for name, value in context.items() if name in accepted and name not in plain}
    try:
        if not wanted:
            return instantiate(plain, _convert_="all")
        # Live objects are given to the call itself: Hydra would first copy them into a config.
        return instantiate({**plain, "_partial_": True}, _convert_="all")(**wanted)
    except UserError:
        raise
    except Exception as error:  # a constructor may refuse its arguments by whatever it likes
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        raise cause if isinstance(cause, UserError) else UserError(f"{path}: {_first_line(cause)}") from error


def _check(node: Mapping[str, Any], path: str) -> Callable[..., Any]:
    """Checks a node's target and arguments, and those of nodes inside it; returns the target."""
    target = _locate(node.get("_target_"), path)
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name, value in node.items():
        if name in _SPECIAL:
            continue
        if name not in parameters and not open_ended:
            raise UserError(
                f"{path}.{name} is not an argument of {target.__qualname__}{nearest(name, list(parameters))} "
                f"(it takes {', '.join(parameters)})"
            )
        if isinstance(value, Mapping) and "_target_" in value:
            _check(value, f"{path}.{name}")
        elif name in hints:
            _check_type(value, hints[name], f"{path}.{name}")
    return target


def _locate(name: str | None, path: str) -> Callable[..., Any]:
    if not name:
        raise UserError(f"{path} has no _target_; name the class or function that it stands for")
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # the message below says it once
    try:
        return get_object(name)
    except Exception as error:  # whatever importing the user's own module raises belongs in the message
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}._target_={name} cannot be imported ({reason}); check the spelling, or install {name.split('.')[0]}"
        ) from error


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}  # annotations that do not resolve check nothing


def _check_type(value: Any, hint: Any, path: str) -> None:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_python(value, strict=isinstance(value, (str, bool, int, float)))
    except ValidationError as error:
        expected = getattr(hint, "__name__", None) or str(hint).replace("typing.", "")
        reason = error.errors()[0]["msg"].lower()
        raise UserError(f"{path}={value!r} has the wrong type: {reason} ({expected})") from None
    except (PydanticSchemaGenerationError, TypeError):
        return  # a type that pydantic does not know


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
