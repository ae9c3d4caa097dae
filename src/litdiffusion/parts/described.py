"""Objects that store the call that created them, so that a checkpoint can create them again."""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, NamedTuple

UNKNOWN = "_unknown_"
"""The key that replaces ``_target_`` if the creating call is unknown; its value is the name of the object's class."""


class Call(NamedTuple):
    """A call that creates an object: the callable, and its arguments by name."""

    target: Callable[..., Any]
    arguments: dict[str, Any]

    def replaced(self, **arguments: Any) -> "Call":
        """The same call with new values of these arguments."""
        return Call(self.target, {**self.arguments, **arguments})


class Described:
    """A class whose objects store the arguments of their constructor.

    Use it as the first base of your own network, ``class MyNet(Described, nn.Module)``. A checkpoint of a training
    without a config can then rebuild the network.
    """

    made_by: Call | None
    """The creating call; None if it had unnamed arguments (``*args``), absent if the class has no constructor."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _storing_call(cls.__init__)  # type: ignore[method-assign]


def description(value: Any, context: Mapping[str, Any] | None = None) -> Any:
    """``value`` in the form of a config: plain values unchanged, an object as ``_target_`` and its arguments.

    An object that cannot be created again becomes ``{"_unknown_": class}``: it stores no call, or its class or function
    is defined inside a function or in the script itself, from which it cannot be imported.

    Args:
        value: a plain value, a `Described` object, a class or function, or a ``functools.partial`` of one.
        context: objects that are passed by these names when the object is created again; they are left out.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [description(item) for item in value]
    if isinstance(value, Mapping):
        return {name: description(item) for name, item in value.items()}
    if hasattr(value, "tolist"):  # a tensor or an array
        return value.tolist()
    call = _call_of(value)
    if call is None or not _importable(call.target):
        return {UNKNOWN: _name(type(value) if call is None else call.target)}
    context = context or {}
    own = {name: item for name, item in call.arguments.items() if name not in context or item is not context[name]}
    return {"_target_": _name(call.target), **description(own)}


def _storing_call(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor ``init``, which first stores its call in ``made_by``."""
    signature = inspect.signature(init)

    @wraps(init)
    def store_and_init(self: Any, *args: Any, **kwargs: Any) -> None:
        if "made_by" not in vars(self):  # else a subclass's constructor is calling this one
            vars(self)["made_by"] = _call(type(self), signature, (self, *args), kwargs)
        init(self, *args, **kwargs)

    return store_and_init


def _call(
    target: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | None:
    """The call with named arguments; None if they do not fit the signature, or have no names (``*args``)."""
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the call itself raises the same error
        return None
    arguments: dict[str, Any] = {}
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return None
        arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    arguments.pop("self", None)
    return Call(target, arguments)


def _call_of(value: Any) -> Call | None:
    if isinstance(value, partial):
        return None if value.args else Call(value.func, value.keywords)
    if inspect.isfunction(value) or inspect.isclass(value):
        return Call(value, {})
    return getattr(value, "made_by", Call(type(value), {}) if isinstance(value, Described) else None)


def _importable(target: Callable[..., Any]) -> bool:
    name = _name(target)
    return "<" not in name and not name.startswith("__main__.")


def _name(target: Any) -> str:
    """The import path, through the package if the package exports the object, as in configs."""
    module, name = target.__module__, target.__qualname__
    package = module.rpartition(".")[0]
    return f"{package if getattr(sys.modules.get(package), name, None) is target else module}.{name}"
