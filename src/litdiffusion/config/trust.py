"""Which names a ``_target_`` may stand for: many in a yaml of one's own, few in a checkpoint's config."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from litdiffusion.errors import UserError

TRUSTED = ("litdiffusion", "torch", "torchvision", "torchmetrics", "lightning", "diffusers", "timm")
"""Packages whose names need no warning in a yaml, and no allowance in a checkpoint."""

PARTS = (
    *("codecs", "data", "nets", "measure.features", "measure.quality", "training.lr", "training.optimizers"),
    *("diffusion.objectives", "diffusion.parameterizations", "diffusion.samplers", "diffusion.schedules"),
    *("diffusion.times", "diffusion.weightings"),
)
"""The modules of litdiffusion that a checkpoint's config may name."""

# Of the standard library only what holds plain values: all else is a way to run, read or delete something.
HARMLESS = {"collections.OrderedDict", "datetime.timedelta", "pathlib.Path", "pathlib._local.Path"}
# Names of wide use that load code, or call what another string names; everything below them is meant too.
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
    """(dotted path, target) of every ``_target_`` of a plain config, at any depth, in lists too."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node["_target_"]
        for name, value in node.items():
            yield from targets(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            yield from targets(value, f"{path}.{index}")


def refuse_name(name: str, path: str) -> None:
    """Refuses, before anything is imported, a name of the standard library or of what loads and runs code.

    Raises:
        UserError: such a name.
    """
    if name in HARMLESS or not _dangerous(name):
        return
    raise UserError(
        f"{path}._target_={name} is refused: a config may not name what runs commands, loads code or touches files; "
        f"name a class or function of your own module instead"
    )


def refuse_object(target: Callable[..., Any], name: str, path: str) -> None:
    """Refuses an object that was reached by another name than its own (``torch.os.system``), see `refuse_name`."""
    origin = origin_of(target) or name
    if origin not in HARMLESS and _dangerous(origin):
        raise UserError(
            f"{path}._target_={name} is refused: it is {origin}, and a config may not name what runs commands, loads "
            f"code or touches files; name a class or function of your own module instead"
        )


def origin_of(target: Any) -> str | None:
    """The module and name under which an object was defined, of an instance those of its class; None if unknown."""
    named = target if hasattr(target, "__qualname__") else type(target)
    module = getattr(named, "__module__", None)
    return None if module is None else f"{module}.{named.__qualname__}"


def warn_of_untrusted_packages(config: Mapping[str, Any], trusted: Iterable[str] = ()) -> None:
    """Warns, in one line, of the packages outside the trusted ones that a config of one's own names."""
    known = {*TRUSTED, *trusted}
    named = [(path, str(target)) for path, target in targets(config) if not _dangerous(str(target))]
    strangers = {package_of(target): path for path, target in named if package_of(target) not in known}
    for package, path in strangers.items():
        if not package.isidentifier() or (package not in sys.modules and find_spec(package) is None):
            continue  # a typing error runs nothing, and is told when the part is made
        warnings.warn(
            f"{path}._target_ runs code of {package}, which is not on the list of trusted packages; if you know it, "
            f"add trusted=[{package}]",
            stacklevel=2,
        )


def check_checkpoint_config(config: Any, path: str, allowed: Iterable[str] = ()) -> None:
    """Refuses a part of a checkpoint's config that names more than the parts of known packages.

    Of litdiffusion its parts may be named; of torch, diffusers and the like only networks (subclasses of
    ``torch.nn.Module``), as the optimizer an optimizer, as ``lr_schedule`` one of torch's. Of any other package nothing
    may be named, unless it is ``allowed``: it is not even imported.

    Raises:
        UserError: another name, or an interpolation, which a stored config never holds.
    """
    if "${" in str(config):
        raise UserError(f"{path} of this checkpoint holds an interpolation, which no run stores; do not use the file")
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
    except Exception:  # the part's own making says what is wrong with the name, and what to install
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
    """Of a dotted name: the standard library, the list above, or private parts that a dotted walk leads through."""
    package = package_of(name)
    standard = package in sys.stdlib_module_names or package == "builtins" or "__" in name
    return standard or any(name == refused or name.startswith(f"{refused}.") for refused in REFUSED)
