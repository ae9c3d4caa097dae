"""From a config node to an object, with errors that name the key and the remedy."""

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from litdiffusion.config.trust import refuse_name, refuse_object
from litdiffusion.errors import UserError, first_line, nearest
from litdiffusion.parts.described import UNKNOWN

Part = TypeVar("Part")
_SPECIAL = {"_target_", "_partial_", "_convert_", "_args_", "_recursive_"}


def make_a(kind: type[Part], node: DictConfig, path: str, **context: Any) -> Part:
    """The object that ``node`` describes, see `make`; refuses an object that is not an instance of ``kind``."""
    part = make(node, path, **context)
    if not isinstance(part, kind):
        raise UserError(
            f"{path}._target_={node._target_} makes {type(part).__name__}, which is not a {kind.__name__}; take one of "
            f"conf/{path}, or a subclass of it"
        )
    return part


def make(node: DictConfig, path: str, **context: Any) -> Any:
    """The object that ``node`` describes; its target receives those objects of ``context`` that it names.

    Args:
        node: a config with ``_target_`` and that target's arguments.
        path: dotted key of the node, for messages.
        context: objects built before, such as the schedule.

    Raises:
        UserError: an unknown target or argument, a value of the wrong type, or an error of the constructor.
    """
    plain = _resolved(node, path)
    target = _check(plain, path)
    accepted = _parameters(target)
    wanted = {name: value for name, value in context.items() if name in accepted and name not in plain}
    try:
        if not wanted:
            return instantiate(plain, _convert_="all")
        # Objects are passed to the call itself, because Hydra would first copy them into a config.
        return instantiate({**plain, "_partial_": True}, _convert_="all")(**wanted)
    except UserError:
        raise
    except Exception as error:  # a constructor may raise any kind of exception
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        raise cause if isinstance(cause, UserError) else UserError(f"{path}: {first_line(cause)}") from error


def class_of(kind: type[Part], node: DictConfig, path: str) -> type[Part]:
    """The class that ``node`` names, of which nothing is made yet; refuses one that is not a subclass of ``kind``."""
    name = node.get("_target_") if OmegaConf.is_dict(node) else None
    target = _locate(name, path)
    if not (inspect.isclass(target) and issubclass(target, kind)):
        raise UserError(
            f"{path}._target_={name} is not a {kind.__name__}; take one of conf/{path}, or a subclass of it"
        )
    return target


def nodes(cfg: DictConfig, group: str) -> dict[str, DictConfig]:
    """The parts of a group of named parts (callbacks, logger), by name.

    Nodes without a ``_target_`` are left out: they hold settings of a part that ``callbacks=none`` removed.
    """
    named = (cfg.get(group) or {}).items()
    return {name: node for name, node in named if node is not None and "_target_" in node}


def accepts(name: str, argument: str, path: str) -> bool:
    """Whether the target called ``name`` takes ``argument``.

    Raises:
        UserError: the target is refused or cannot be imported.
    """
    parameters = _parameters(_locate(name, path))
    return argument in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _resolved(node: DictConfig, path: str) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or path
        images = "; this part is made for images: take data=digits, or another part"
        raise UserError(f"{key}: {first_line(error)}{images if 'derived.shape' in str(error) else ''}") from error
    if not isinstance(plain, dict):
        raise UserError(f"{path}={plain!r} must be a group of settings with a _target_; take one of conf/{path}")
    return plain


def _check(node: dict[str, Any], path: str) -> Callable[..., Any]:
    """Checks target and arguments of a node and of the nodes inside it; returns the target."""
    if UNKNOWN in node:
        raise UserError(
            f"{path} is an object of {node[UNKNOWN]} from a script, and the checkpoint does not hold its arguments; "
            f"pass the module, Pretrained(path, module=module) or fit(module, ckpt_path=path), let its class inherit "
            f"litdiffusion.parts.described.Described, or train from a config"
        )
    target = _locate(node.get("_target_"), path)
    parameters = _parameters(target)
    hints = _hints(target)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name, value in list(node.items()):
        if name in _SPECIAL:
            continue
        if name not in parameters and not open_ended:
            raise UserError(
                f"{path}.{name} is not an argument of {target.__qualname__}{nearest(name, list(parameters))} "
                f"(it takes {', '.join(parameters)})"
            )
        node[name] = value = _as_time(value, hints.get(name))
        if not _check_inside(value, f"{path}.{name}") and name in hints:
            _check_type(value, hints[name], f"{path}.{name}")
    _check_inside(list(node.get("_args_", [])), f"{path}._args_")
    return target


def _check_inside(value: Any, path: str) -> bool:
    """Checks every node with a target inside ``value``; returns whether there is one."""
    if isinstance(value, Mapping) and ("_target_" in value or UNKNOWN in value):
        _check(value, path)
        return True
    if not isinstance(value, Mapping | list):
        return False
    inner = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = [_check_inside(node, f"{path}.{name}") for name, node in inner]
    return any(found)


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (ValueError, TypeError):  # some functions written in C have no signature
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _locate(name: str | None, path: str) -> Callable[..., Any]:
    if not name or not isinstance(name, str):
        raise UserError(f"{path} has no _target_; name the class or function that it stands for")
    refuse_name(name, path)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # Hydra would log the error that is raised below
    try:
        target = get_object(name)
    except Exception as error:  # importing a user's module may raise any kind of exception
        hint = _nearest_name(name)
        reason = f"({' '.join(str(error).split())}); check the spelling, or install {name.split('.')[0]}"
        raise UserError(f"{path}._target_={name} cannot be imported{hint or f' {reason}'}") from error
    if not callable(target):
        raise UserError(f"{path}._target_={name} is not a class or function; name one")
    refuse_object(target, name, path)
    return target


def _nearest_name(name: str) -> str:
    """A hint for the first part of a dotted name that cannot be found."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            parent = get_object(".".join(parts[:length]))
        except Exception:  # try the module above
            continue
        return nearest(parts[length], [known for known in dir(parent) if not known.startswith("_")])
    return ""


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}  # without resolvable annotations no types are checked


def _as_time(value: Any, hint: Any) -> Any:
    """Converts ``days:hours:minutes:seconds`` (Lightning's format) for an argument that is a timedelta."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+):(\d+)", value) if isinstance(value, str) else None
    if match is None or timedelta not in (hint, *get_args(hint)):
        return value
    parts = zip(("days", "hours", "minutes", "seconds"), map(int, match.groups()), strict=True)
    return {"_target_": "datetime.timedelta", **dict(parts)}


def _check_type(value: Any, hint: Any, path: str) -> None:
    if get_origin(hint) is tuple and len(get_args(hint)) == 1:
        hint = tuple[get_args(hint)[0], ...]  # what ``tuple[str]`` means in diffusers
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_python(value, strict=isinstance(value, (str, bool, int, float)))
    except ValidationError as error:
        expected = getattr(hint, "__name__", None) or str(hint).replace("typing.", "")
        reason = error.errors()[0]["msg"].lower()
        raise UserError(f"{path}={value!r} has the wrong type: {reason} ({expected})") from None
    except (PydanticSchemaGenerationError, TypeError):
        return  # pydantic cannot check this type
