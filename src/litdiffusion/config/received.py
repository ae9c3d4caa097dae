"""What the config of a checkpoint may hold: plain values, and classes of the kind that its section needs.

A checkpoint may come from a stranger, so its config is data and no program. Only the sections below are read. Each
names a class, never a function, from a known place of a trusted package, and its arguments are plain values. No
argument is a path: paths come from the user alone.
"""

import inspect
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from litdiffusion.config.trust import origin_of, package_of, refuse_name
from litdiffusion.errors import UserError
from litdiffusion.parts.described import UNKNOWN

PLACES = {
    "litdiffusion": tuple(
        f"litdiffusion.{room}."
        for room in (
            *("nets", "codecs", "data", "diffusion.schedules", "diffusion.parameterizations", "diffusion.samplers"),
            *(
                "diffusion.denoisers",
                "diffusion.times",
                "diffusion.weightings",
                "diffusion.objectives",
                "training.optimizers",
                "training.lr",
            ),
            *("measure.quality", "measure.features"),
        )
    ),
    "torch": ("torch.nn.modules.", "torch.optim."),
    "torchvision": ("torchvision.models.", "torchvision.ops."),
    "diffusers": ("diffusers.models.",),
    "timm": ("timm.models.", "timm.layers."),
}
"""Trusted package -> where the classes that a checkpoint may name are defined."""
IMPORTED = {"litdiffusion": ("litdiffusion.",), "torch": ("torch.nn.", "torch.optim."), "diffusers": ("diffusers.",)}
"""Where the names of these classes are looked up, if that is another place: nothing else is imported."""
DEEPEST, LONGEST = 20, 100_000
"""Bounds on the nesting of a section and on the number of its values and characters."""
LONGEST_NAME = 255
"""Bound on the characters in the name of a class, as that of a folder."""
LARGEST = {"model": 10**6, "schedule": 10**6, "sampler": 10**6, "times": 10**6, "data": 10**8}
"""Section -> bound on its whole numbers, which may be lengths of tables there; 2**32 for others and for seeds."""


def kinds() -> dict[str, Any]:
    """Section of a config -> the class that its part must be of."""
    from torch import nn, optim

    from litdiffusion import codecs, data
    from litdiffusion.diffusion import denoisers, objectives, parameterizations, samplers, schedules, times, weightings
    from litdiffusion.measure import quality

    return {
        "model": nn.Module,
        "codec": codecs.Codec,
        "schedule": schedules.NoiseSchedule,
        "parameterization": parameterizations.Parameterization,
        "sampler": samplers.Sampler,
        "guide": denoisers.Guidance,
        "times": times.TimeSampler,
        "weighting": weightings.Weighting,
        "objective": objectives.DenoisingObjective | codecs.ReconstructionObjective,
        "optimizer": optim.Optimizer,
        "lr_schedule": optim.lr_scheduler.LRScheduler,
        "data": data.DataModule,
        "metrics": quality.Quality,
    }


def checked_part(
    node: Any, section: str, allowed: Iterable[str] = (), paths: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The section of a checkpoint's config, if it may be made into a part; arguments that are paths are replaced.

    Args:
        node: the section's content.
        section: one of `kinds`.
        allowed: packages that the user trusts: any class or function of theirs may be named.
        paths: the user's own paths, by the names of arguments; other paths are left out.

    Raises:
        UserError: anything but a class of the section's kind with plain values; nothing was made.
    """
    check_plain(node, section)
    checker = _Checker(set(allowed), paths or {})
    kind = kinds()[section]
    if section == "lr_schedule" and isinstance(node, Mapping) and "scheduler" in node:  # Lightning's form
        settings = {key: value for key, value in node.items() if key != "scheduler"}
        if "_target_" in settings or UNKNOWN in settings:
            raise UserError("lr_schedule of this checkpoint holds two schedules; do not use the file")
        return {
            **{key: checker.argument(value, None, f"{section}.{key}") for key, value in settings.items()},
            "scheduler": checker.part(node["scheduler"], kind, f"{section}.scheduler"),
        }
    if section == "guide" and isinstance(node, Mapping):
        return checker.guide(node, kind)
    return checker.part(node, kind, section)


def check_plain(value: Any, section: str) -> None:
    """Refuses what no run stores in a section: interpolations, special keys, odd types and sizes."""
    pending: list[tuple[Any, str, int]] = [(value, section, 0)]
    size = 0
    while pending:
        value, path, depth = pending.pop()
        inner: list[tuple[Any, Any]] = []
        if isinstance(value, Mapping):
            inner = list(value.items())
        elif isinstance(value, list | tuple):
            inner = list(enumerate(value))
        # Counted one by one, because a list may hold itself, or another one a thousand times.
        size += 1 + (len(value) if isinstance(value, str) else len(inner))
        odd = "is larger than any config" if size > LONGEST or depth > DEEPEST else _oddity(value, path)
        if odd:
            raise UserError(f"{path} of this checkpoint {odd}; do not use the file")
        pending += [(item, f"{path}.{key}", depth + 1) for key, item in inner]


def _oddity(value: Any, path: str) -> str | None:
    """What is wrong with a value, apart from what is inside it; None if it is plain."""
    if isinstance(value, str):
        return "holds an interpolation, which no run writes" if "${" in value else None
    if isinstance(value, Mapping):
        known = ("_target_", UNKNOWN)
        odd = [k for k in value if not isinstance(k, str) or "${" in k or (k.startswith("_") and k not in known)]
        return f"has the key {str(odd[0])[:80]!r}, which no run writes" if odd else None
    if isinstance(value, bool) or value is None or isinstance(value, list | tuple):
        return None
    if isinstance(value, float):
        return "is not a number" if math.isnan(value) else None
    if isinstance(value, int):
        section, _, rest = path.partition(".")
        largest = 2**32 if rest == "seed" else LARGEST.get(section, 2**32)
        return f"is a number beyond {largest}, which no run writes" if abs(value) > largest else None
    return f"holds {type(value).__name__}, which is no plain value"


class _Checker:
    """Checks nodes against the classes that they name.

    Args:
        allowed: packages that the user trusts.
        paths: the user's own paths, by the names of arguments.
    """

    def __init__(self, allowed: set[str], paths: Mapping[str, str]):
        self.allowed, self.paths = allowed, paths

    def part(self, node: Any, kind: type, path: str) -> dict[str, Any]:
        """A node that names a class of this kind, or anything in a package that is trusted."""
        if not isinstance(node, Mapping):
            raise UserError(
                f"{path} of this checkpoint is {type(node).__name__}, no group of settings; do not use the file"
            )
        if UNKNOWN in node:
            return dict(node)  # making the part says what to do
        name = node.get("_target_")
        if not isinstance(name, str):
            raise UserError(f"{path} of this checkpoint names no class; do not use the file")
        refuse_name(name, path)
        target = _located(name, path, self.allowed)
        own = package_of(origin_of(target) or "") in self.allowed
        if not own:
            _check_class(target, name, kind, path)
        hints = _hints(target)
        dropped = {} if own else {key for key, hint in hints.items() if _is_path(hint)}
        arguments = {
            key: self.argument(value, hints.get(key), f"{path}.{key}", own)
            for key, value in node.items()
            if key not in dropped
        }
        return arguments | {key: value for key, value in self.paths.items() if _is_path(hints.get(key))}

    def guide(self, node: Mapping[str, Any], kind: type) -> dict[str, Any]:
        """A guidance; what `config.guide.Guide` loads for it is a part of its own, or a path that is left out."""
        from litdiffusion.measure.features import Features

        part = self.part({key: value for key, value in node.items() if key not in ("ckpt", "features")}, kind, "guide")
        part |= {"ckpt": None} if "ckpt" in node else {}
        return part | (
            {"features": self.part(node["features"], Features, "guide.features")} if "features" in node else {}
        )

    def argument(self, value: Any, hint: Any, path: str, own: bool = False) -> Any:
        """A plain value as it is; a nested part only where the signature takes one, or in a trusted package."""
        if isinstance(value, list | tuple):
            return [self.argument(item, hint, f"{path}.{i}", own) for i, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if "_target_" not in value and UNKNOWN not in value:
            return {key: self.argument(item, None, f"{path}.{key}", own) for key, item in value.items()}
        kind = next((kind for kind in _classes_in(hint) if issubclass(kind, _nested_kinds())), None)
        if kind is None and not own:
            raise UserError(
                f"{path} of this checkpoint holds a part where its signature takes none; do not use the file"
            )
        return self.part(value, kind or object, path)


def _nested_kinds() -> tuple[type, ...]:
    """The kinds of parts that an argument may be."""
    from litdiffusion.measure.features import Features

    return (*kinds().values(), Features)


def _located(name: str, path: str, allowed: set[str]) -> Any:
    """The object of this name, from the places that are known; imports nothing else."""
    from hydra.utils import get_object

    package = package_of(name)
    if package not in PLACES and package not in allowed:
        raise UserError(
            f"this checkpoint would import {name} ({path}), outside the trusted packages; if you know who wrote it "
            f"and {package}, allow it by trust={package}"
        )
    if package not in allowed and not name.startswith(IMPORTED.get(package, PLACES[package])):
        return None
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)
    try:
        return get_object(name)
    except Exception as error:  # an import may fail in any way
        reason = " ".join(str(error).split())[:200]
        remedy = f"install {package}"
        if package == "litdiffusion":
            remedy = "the checkpoint was written by another version of litdiffusion, use that one"
        raise UserError(f"{path}._target_={name} cannot be imported ({reason}); {remedy}") from error


def _check_class(target: Any, name: str, kind: type, path: str) -> None:
    """Refuses what is no class of this kind from a known place, and modules that are made of code."""
    from torch import fx, jit

    known = inspect.isclass(target) and issubclass(target, kind) and not issubclass(target, jit.ScriptModule)
    origin = origin_of(target) or ""
    if not known or issubclass(target, fx.GraphModule) or not origin.startswith(PLACES.get(package_of(origin), ())):
        package = package_of(name)
        wanted = getattr(kind, "__name__", kind)
        raise UserError(
            f"this checkpoint names {name} ({path}), which is not a {wanted} of a trusted package; if you know who "
            f"wrote it, allow it by trust={package}"
        )


def _hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}


def _classes_in(hint: Any) -> list[type]:
    """The classes in an annotation, inside unions and sequences too."""
    found = [hint] if inspect.isclass(hint) else []
    return found + [kind for part in get_args(hint) for kind in _classes_in(part)]


def _is_path(hint: Any) -> bool:
    return any(issubclass(kind, Path) for kind in _classes_in(hint))


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return name


ClassName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_printable)]
"""The name of a class: a short text that can be printed."""


Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Condition(BaseModel):
    """A continuous condition: its name, and mean, deviation, smallest and largest value of the training items."""

    name: ClassName
    mean: Finite
    std: Annotated[Finite, Field(gt=0)]
    low: Finite
    high: Finite


class _Derived(BaseModel):
    """Facts about the data that a model needs."""

    shape: Annotated[list[Annotated[int, Field(ge=1, le=65_536)]], Field(min_length=1, max_length=4)]
    num_classes: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    conditions: Annotated[list[_Condition], Field(max_length=LONGEST)] = []


class Settings(BaseModel):
    """The settings of a checkpoint's config that are read beside its parts; all others are ignored."""

    derived: _Derived
    learned_variance: bool = False
    conditional: bool | Annotated[list[ClassName], Field(max_length=LONGEST)] = False
    clip_samples: bool = True
    class_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    guidance: Annotated[float, Field(allow_inf_nan=False)] | Literal["auto"] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    skip_nonfinite: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Description(BaseModel):
    """What a checkpoint says of its model: the settings above, and the range of the data's values."""

    config: Settings
    value_range: tuple[float, float] | None = None
    class_names: Annotated[list[ClassName], Field(max_length=LONGEST)] = []


class Described(NamedTuple):
    """What a checkpoint's description says without any part: settings, value range, and names of the classes."""

    settings: dict[str, Any]
    value_range: tuple[float, float] | None
    class_names: list[str]


def checked_description(description: Any, path: str | Path) -> Described:
    """The settings, the value range and the class names of a checkpoint's description.

    Raises:
        UserError: a description that is malformed or out of range, with its first fault.
    """
    try:
        checked = Description.model_validate(description)
        low, high = checked.value_range or (-1.0, 1.0)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "is nested too deeply"}
        where = ".".join(map(str, first["loc"])) or "description"
        raise UserError(f"{path} holds no model: its {where}: {first['msg'].lower()}; take another file") from None
    if not -math.inf < low < high < math.inf:
        raise UserError(f"{path} holds no model: its value_range is {low} to {high}; take another file")
    names, count = checked.class_names, checked.config.derived.num_classes
    if names and len(names) != count:
        raise UserError(f"{path} holds no model: {len(names)} class_names for {count} classes; take another file")
    return Described(checked.config.model_dump(), checked.value_range, names)
