"""Which names a ``_target_`` of the user's own yaml may have; `received` has the rules for a checkpoint."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from litdiffusion.errors import UserError

TRUSTED = ("litdiffusion", "torch", "torchvision", "torchmetrics", "lightning", "diffusers", "timm")
"""Packages that need no warning in a yaml."""

# The only names of the standard library that are allowed: they hold plain values and cannot run or delete anything.
HARMLESS = {"collections.OrderedDict", "datetime.timedelta", "pathlib.Path", "pathlib._local.Path"}
# Refused names of known packages, with everything below them: they load code, or call a function named by a string.
REFUSED = (
    *("torch.load", "torch.serialization", "torch.jit.load", "torch.jit._serialization", "torch.hub", "torch.package"),
    *("torch.utils.cpp_extension", "torch.utils.collect_env", "torch.utils.model_zoo", "torch.utils.file_baton"),
    *("torch.ops", "torch._ops", "torch.classes", "torch._classes", "torch.testing", "torch._inductor"),
    *("torch.multiprocessing", "torch.distributed.run", "torch.distributed.launch", "torch.distributed.elastic"),
    *("lightning.fabric.utilities.cloud_io", "lightning.pytorch.core.saving", "lightning.app", "lightning.pytorch.cli"),
    *("hydra", "omegaconf", "numpy.load", "numpy.f2py", "numpy.testing", "numpy.ctypeslib", "pandas.read_pickle"),
    *("joblib", "cloudpickle", "dill", "yaml", "pip", "setuptools", "pkg_resources", "wandb"),
    *("litdiffusion.config.make", "litdiffusion.commands", "litdiffusion.build"),
)


def targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, target) of every ``_target_`` in a plain config, at any depth and inside lists."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node["_target_"]
        for name, value in node.items():
            yield from targets(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            yield from targets(value, f"{path}.{index}")


def refuse_name(name: str, path: str) -> None:
    """Refuses names of the standard library and of functions that load or run code; imports nothing.

    Raises:
        UserError: the name is refused.
    """
    if name in HARMLESS or not _dangerous(name):
        return
    raise UserError(
        f"{path}._target_={name} is refused: a config may not name what runs commands, loads code or touches files; "
        f"name a class or function of your own module instead"
    )


def refuse_object(target: Callable[..., Any], name: str, path: str) -> None:
    """Refuses an object whose own name `refuse_name` refuses, e.g. ``torch.os.system``, which is ``os.system``."""
    origin = origin_of(target) or name
    if origin not in HARMLESS and _dangerous(origin):
        raise UserError(
            f"{path}._target_={name} is refused: it is {origin}, and a config may not name what runs commands, loads "
            f"code or touches files; name a class or function of your own module instead"
        )


def origin_of(target: Any) -> str | None:
    """The dotted name under which an object (or the class of an instance) was defined; None if unknown."""
    named = target if hasattr(target, "__qualname__") else type(target)
    module = getattr(named, "__module__", None)
    return None if module is None else f"{module}.{named.__qualname__}"


def warn_of_untrusted_packages(config: Mapping[str, Any], trusted: Iterable[str] = ()) -> None:
    """Warns of every package that a user's own config names and that is not trusted."""
    known = {*TRUSTED, *trusted}
    named = [(path, str(target)) for path, target in targets(config) if not _dangerous(str(target))]
    strangers = {package_of(target): path for path, target in named if package_of(target) not in known}
    for package, path in strangers.items():
        if not package.isidentifier() or (package not in sys.modules and find_spec(package) is None):
            continue  # a typing error runs nothing; making the part reports it
        warnings.warn(
            f"{path}._target_ runs code of {package}, which is not on the list of trusted packages; if you know it, "
            f"add trusted=[{package}]",
            stacklevel=2,
        )


def package_of(name: str) -> str:
    """The top-level package of a dotted name."""
    return str(name).partition(".")[0]


def _dangerous(name: str) -> bool:
    """Whether a dotted name is in the standard library or in `REFUSED`, or has a double underscore."""
    package = package_of(name)
    standard = package in sys.stdlib_module_names or package == "builtins" or "__" in name
    return standard or any(name == refused or name.startswith(f"{refused}.") for refused in REFUSED)
