"""How an object was made, remembered by the object itself, so that a checkpoint can say how to make it again."""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
UNKNOWN = "_unknown_"
"""Stands in place of ``_target_`` where nobody knows how an object was made; its value names the object's class."""


class Call(NamedTuple):
    """A call that makes an object: what is called, and its arguments by name."""

    target: Callable[..., Any]
    arguments: dict[str, Any]

    def replaced(self, **arguments: Any) -> "Call":
        """The same call with other values of these arguments."""
        return Call(self.target, {**self.arguments, **arguments})


class Described:
    """A class whose objects remember the arguments of their constructor.

    A network of your own takes it as its first base, ``class MyNet(Described, nn.Module)``: a checkpoint that was
    trained without a config can then rebuild it.
    """

    made_by: Call | None
    """The call; None where it had arguments without a name (``*args``), absent where the class has no constructor."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)


def described(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function that makes an object: the object remembers this call instead of its constructor's."""

    @wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        result = function(*args, **kwargs)
        vars(result)["made_by"] = _call(made, inspect.signature(function), args, kwargs)
        return result

    return made


def description(value: Any, context: Mapping[str, Any] | None = None) -> Any:
    """``value`` as a config writes it: plain values as they are, an object as ``_target_`` and its arguments.

    An object that cannot be made again becomes ``{"_unknown_": class}``: it remembers no call, or it is defined in a
    function or in the script itself, where nobody else can import it.

    Args:
        value: a plain value, a `Described` object, a function, or a ``functools.partial`` of one.
        context: objects that are passed by these names when the object is made again; they are left out.
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
    return {"_target_": _name(call.target), **description(own), **({"_partial_": True} if _is_function(value) else {})}


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @wraps(init)
    def remembering(self: Any, *args: Any, **kwargs: Any) -> None:
        if "made_by" not in vars(self):  # else a subclass's constructor is calling this one
            vars(self)["made_by"] = _call(type(self), signature, (self, *args), kwargs)
        init(self, *args, **kwargs)

    return remembering


def _call(target: Callable[..., Any], signature: inspect.Signature, args: tuple, kwargs: dict) -> Call | None:
    """None where the arguments do not fit, which the call itself reports, or have no names (``*args``)."""
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:
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
    if inspect.isfunction(value):
        return Call(value, {})
    return getattr(value, "made_by", Call(type(value), {}) if isinstance(value, Described) else None)


def _is_function(value: Any) -> bool:
    return isinstance(value, partial) or inspect.isfunction(value)


def _importable(target: Callable[..., Any]) -> bool:
    name = _name(target)
    return "<" not in name and not name.startswith("__main__.")


def _name(target: Any) -> str:
    """As yamls name it: by the package, where that offers what one of its files defines."""
    module, name = target.__module__, target.__qualname__
    package = module.rpartition(".")[0]
    return f"{package if getattr(sys.modules.get(package), name, None) is target else module}.{name}"
