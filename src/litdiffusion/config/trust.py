"""Which names a ``_target_`` may have: many in a user's own yaml, few in the config of a checkpoint."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from litdiffusion.errors import UserError

TRUSTED = ("litdiffusion", "torch", "torchvision", "torchmetrics", "lightning", "diffusers", "timm")
"""Packages that need no warning in a yaml, and no permission in a checkpoint."""

PARTS = (
    *("codecs", "data", "nets", "measure.features", "measure.quality", "training.lr", "training.optimizers"),
    *("diffusion.objectives", "diffusion.parameterizations", "diffusion.samplers", "diffusion.schedules"),
    *("diffusion.times", "diffusion.weightings"),
)
"""The modules of litdiffusion that a checkpoint's config may name."""

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


def check_checkpoint_config(config: Any, path: str, allowed: Iterable[str] = ()) -> None:
    """Refuses a part of a checkpoint's config whose targets could run foreign code.

    Allowed targets: the parts of litdiffusion; networks (``torch.nn.Module``) of trusted packages; as ``optimizer`` an
    optimizer and as ``lr_schedule`` a scheduler of trusted packages; everything in the packages of ``allowed``. Other
    packages are not even imported.

    Raises:
        UserError: another target, or an interpolation, which a stored config never holds.
    """
    if "${" in str(config):
        raise UserError(f"{path} of this checkpoint holds an interpolation, which no run writes; do not use the file")
    for where, target in targets(config, path):
        refuse_name(str(target), where)
        package = package_of(str(target))
        if package in set(allowed):
            continue
        if package not in TRUSTED:
            raise UserError(
                f"this checkpoint would import {target} ({where}), outside the trusted packages; if you know who wrote "
                f"it and {package}, allow it by trust={package}"
            )
        _check_kind(str(target), where)


def package_of(name: str) -> str:
    """The top-level package of a dotted name."""
    return str(name).partition(".")[0]


def _check_kind(name: str, path: str) -> None:
    from hydra.utils import get_object
    from torch import nn, optim

    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)
    try:
        target = get_object(name)
    except Exception:  # making the part reports the error and its remedy
        return
    origin = origin_of(target) or name
    part = origin.startswith(tuple(f"litdiffusion.{name}." for name in PARTS))
    rates = optim.lr_scheduler.LRScheduler
    kind = {"optimizer": optim.Optimizer, "lr_schedule": rates}.get(path.partition(".")[0], nn.Module)
    known = isinstance(target, type) and issubclass(target, kind) and package_of(origin) in TRUSTED
    if not part and not known:
        raise UserError(
            f"this checkpoint names {name} ({path}), which is neither a part of a model ({', '.join(PARTS)} of "
            f"litdiffusion) nor a {kind.__name__} of a trusted package; if you know who wrote it, allow it by "
            f"trust={package_of(name)}"
        )


def _dangerous(name: str) -> bool:
    """Whether a dotted name is in the standard library or in `REFUSED`, or has a double underscore."""
    package = package_of(name)
    standard = package in sys.stdlib_module_names or package == "builtins" or "__" in name
    return standard or any(name == refused or name.startswith(f"{refused}.") for refused in REFUSED)
