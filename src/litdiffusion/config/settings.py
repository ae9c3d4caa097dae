"""Checks of single settings before any part is built, so that a wrong value is refused at once."""

import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf

from litdiffusion.data import Facts
from litdiffusion.data.conditions import CLASS, chosen_columns
from litdiffusion.diffusion.denoisers import ClassifierFreeGuidance, Guidance
from litdiffusion.errors import UserError
from litdiffusion.runs.record import FILE as RECORD
from litdiffusion.runs.record import how_to_leave

GUIDANCE = 1.5
ROUNDING = ("bf16-true", "16-true")
"""Precisions in which Lightning rounds all floats of a batch."""
LARGEST_SEED = 2**32 - 1  # numpy's limit
OWN = ("litdiffusion.", "lightning.", "torch.")
"""Packages whose arguments are checked."""
SWITCHES = (
    *("allow_changed_data", "clip_samples", "gradient_checkpointing"),
    *("dry_run", "learned_variance", "print_config", "resume"),
)


def check_settings(cfg: DictConfig) -> None:
    """Refuses values of the wrong type or out of range, and names the allowed range."""
    _check_length(cfg)
    _check_intervals(cfg)
    require_int(cfg, "seed", 0)
    _require("seed", cfg.seed, cfg.seed <= LARGEST_SEED, f"at most {LARGEST_SEED}")
    _require("metric", cfg.metric, isinstance(cfg.metric, str), "the name of a number, such as val/loss")
    path = cfg.ckpt_path
    _require("ckpt_path", path, path is None or isinstance(path, str), "the path of a checkpoint, or null")
    for key, usual in (("ema_decay", "0.999 is usual, 0 is none"), ("class_dropout", "0.1 is usual")):
        value = cfg[key]
        _require(key, value, _is_number(value) and 0 <= value < 1, f"a number in [0, 1); {usual}")
    threads = cfg.threads
    _require("threads", threads, threads == "auto" or (_is_int(threads) and threads > 0), "auto or a positive number")
    require_int(cfg, "skip_nonfinite", 0)
    for key in SWITCHES:
        _require(key, cfg[key], isinstance(cfg[key], bool), "true or false")
    modes = ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
    fits = isinstance(cfg.compile, bool) or cfg.compile in modes
    _require("compile", cfg.compile, fits, f"true, false, or a mode of torch.compile: {', '.join(modes)}")
    conditional = cfg.conditional
    fits = conditional == "auto" or isinstance(conditional, bool) or _is_list_of_words(conditional)
    allowed = "true, false or auto, or a list of conditions, conditional=[class,grey]"
    _require("conditional", conditional, fits, allowed)
    _require("trusted", cfg.trusted, _is_list_of_words(cfg.trusted), "a list of packages, trusted=[mynets]")
    _require("tags", cfg.tags, _is_list_of_words(cfg.tags), "a list of words, tags=[trial]")
    _check_precision(cfg)
    _refuse_nan(OmegaConf.to_container(cfg, resolve=False))


def _refuse_nan(node: Any, key: str = "") -> None:
    """Refuses NaN, because comparisons with a range would let it pass; classes of others may have a use for it."""
    if isinstance(node, dict) and not str(node.get("_target_", "litdiffusion.")).startswith(OWN):
        return
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            _refuse_nan(value, f"{key}.{name}".lstrip("."))
    else:
        _require(key, node, not (isinstance(node, float) and math.isnan(node)), "a number")


def budget_seconds(value: Any) -> float:
    """The seconds of ``budget``: hours:minutes:seconds, or with days before them, such as 00:08:00."""
    parts = value.split(":") if isinstance(value, str) else []
    fits = len(parts) in (3, 4) and all(part.isdecimal() for part in parts) and any(map(int, parts))
    _require("budget", value, fits, "hours:minutes:seconds, such as 00:08:00 for eight minutes")
    units = ("days", "hours", "minutes", "seconds")[-len(parts) :]
    return timedelta(**dict(zip(units, map(int, parts), strict=True))).total_seconds()


def _check_length(cfg: DictConfig) -> None:
    if cfg.budget is not None:
        budget_seconds(cfg.budget)
    steps = cfg.trainer.max_steps
    fits = _is_int(steps) and (steps == -1 or steps > 0)
    _require(
        "trainer.max_steps", steps, fits, "a whole number of at least 1, or -1 for as many as trainer.max_epochs has"
    )
    epochs = cfg.trainer.max_epochs
    fits = epochs is None or (_is_int(epochs) and epochs >= -1)
    _require("trainer.max_epochs", epochs, fits, "a whole number, or null; -1 has no limit")


def _check_intervals(cfg: DictConfig) -> None:
    require_int(cfg, "trainer.accumulate_grad_batches", 1)
    if cfg.save_every is not None:
        require_int(cfg, "save_every", 1)
    for name in cfg.get("callbacks") or ():
        if OmegaConf.select(cfg, f"callbacks.{name}.every_n_steps") is not None:
            require_int(cfg, f"callbacks.{name}.every_n_steps", 1)


def require_int(cfg: DictConfig, key: str, least: int) -> None:
    """Refuses a value that is not a whole number of at least ``least``."""
    value = OmegaConf.select(cfg, key)
    _require(key, value, _is_int(value) and value >= least, f"a whole number of at least {least}")


def diffuses(cfg: DictConfig) -> bool:
    """Whether a run with this config trains a diffusion; one without a noise schedule trains an autoencoder."""
    return cfg.get("schedule") is not None


def num_classes_of(cfg: DictConfig, facts: Facts) -> int:
    """Number of classes that the net learns: those of the data if the run is conditional, else 0.

    ``conditional=auto`` is true for labelled images (C, H, W), if the net has an argument ``num_classes``. A list asks
    for classes by the name ``class``. ``conditional=true`` asks for all that is given with the items: classes, or the
    conditions that a table names, or both.

    Raises:
        UserError: the data have no class labels or some out of range, or the net takes no classes.
    """
    asked = _asked(cfg)
    class_label, num_classes = facts.train.class_label, facts.num_classes
    labelled_images = class_label is not None and num_classes > 1 and len(facts.shape) == 3
    # `in cfg.model` would compute the value, ${derived.num_classes}, which calls this function again and again.
    takes_classes = "num_classes" in set(cfg.model)
    fits = labelled_images and takes_classes
    if not (fits if asked == "auto" else CLASS in asked if isinstance(asked, list) else asked):
        return 0
    if class_label is None and facts.given_conditions and asked is True:
        return 0
    if class_label is None and facts.why_no_classes:
        raise UserError(f"conditional=true needs classes, but there are none: {facts.why_no_classes}")
    if class_label is None or num_classes < 1:
        raise UserError(
            "conditional=true needs labelled data, these data have no classes; take data=digits, mnist or another "
            "labelled set, or conditional=false" + _could_name(facts)
        )
    if not 0 <= class_label.min() <= class_label.max() < num_classes:
        raise UserError(
            f"class labels must be from 0 to {num_classes - 1}, the data have {class_label.min()} to "
            f"{class_label.max()}; repair the class labels or num_classes of the data"
        )
    if not takes_classes:
        raise UserError(
            f"conditional=true needs a net with num_classes, {cfg.model._target_} has none; add num_classes: "
            f"${{derived.num_classes}} to its yaml, or take model=unet or mlp"
        )
    return num_classes


def conditions_of(cfg: DictConfig, facts: Facts) -> list[str]:
    """Names of the continuous conditions that the net learns, see `litdiffusion.data.conditions`.

    ``conditional=auto`` and ``true`` take those that are given with the items, a list those that it names beside
    ``class``.

    Raises:
        UserError: a name that the data do not have, twice the same, or a net that takes no conditions.
    """
    asked = _asked(cfg)
    names = [name for name in asked if name != CLASS] if isinstance(asked, list) else []
    names = list(facts.given_conditions) if asked == "auto" or asked is True else names
    chosen_columns(names, facts.condition_names, f"conditional=[{','.join(names)}]")
    _require("conditional", names, len(set(names)) == len(names), "a list with each condition once")
    if names and "conditions" not in set(cfg.model):
        raise UserError(
            f"conditional=[{','.join(names)}] needs a net with conditions, {cfg.model._target_} has none; add "
            f"conditions: ${{derived.conditions}} to its yaml, or take model=unet or mlp"
        )
    if names and str(cfg.trainer.precision) in ROUNDING:
        raise UserError(
            f"trainer.precision={cfg.trainer.precision} rounds the conditions {', '.join(names)} to three digits or "
            f"less; take trainer.precision={str(cfg.trainer.precision).replace('true', 'mixed')}"
        )
    return names


def _asked(cfg: DictConfig) -> bool | str | list[str]:
    """``conditional`` as true, false, auto or a plain list of names."""
    return cfg.conditional if isinstance(cfg.conditional, bool | str) else list(cfg.conditional)


def _could_name(facts: Facts) -> str:
    """Which conditions a config could ask for by name; empty if there are none."""
    names = list(facts.condition_names)
    return f"; or name what can be computed of the items: conditional=[{','.join(names)}]" if names else ""


def is_conditional(cfg: DictConfig) -> bool:
    """Whether a model with this config is told anything: classes or conditions."""
    return bool(cfg.derived.num_classes or cfg.derived.get("conditions"))


def guidance_of(
    cfg: DictConfig, weight: float | str | None = "auto", kind: type[Guidance] = ClassifierFreeGuidance
) -> float:
    """The weight of a kind of guidance for samples of a model with this config.

    ``auto`` is `GUIDANCE` for images of a model that can be guided so, and for a ``kind.always``; else 1, which is
    none. Classifier-free guidance needs a model that knows p(x) beside p(x | class).

    Raises:
        UserError: no finite number, or a weight other than 1 for a model without the classes, or p(x), that it needs.
    """
    classes, drops = cfg.derived.num_classes, cfg.class_dropout
    told, lacks = is_conditional(cfg) if kind.needs_null_class else classes, None
    if kind.needs_classes and not told:
        lacks = "conditional=true"
    elif kind.needs_null_class and not drops:
        lacks = "class_dropout above 0"
    if weight == "auto":
        weight = GUIDANCE if kind.always or (lacks is None and classes and len(cfg.derived.shape) == 3) else 1.0
    _require("guidance", weight, _is_number(weight) and math.isfinite(weight), "a finite number, or auto; 1 is none")
    if weight != 1 and lacks:
        raise UserError(f"guidance={weight} needs a model that was trained with {lacks}; leave it out")
    return float(weight)


def check_folder(path: Path) -> None:
    """Makes the folder; refuses one that is not writable, or that holds files of a run but no run.json."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be made ({error.strerror}); name another one") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"the folder {path} is not writable; name another one")
    if not (path / RECORD).exists() and ((path / "metrics.csv").exists() or (path / "checkpoints").exists()):
        raise UserError(f"{path} already holds a run but no {RECORD}, and would be overwritten; {how_to_leave(path)}")


def check_network(cfg: DictConfig) -> None:
    """Refuses an autoencoder as the net of a diffusion, and another net for ``recipe=autoencoder``.

    Imports the net's class.
    """
    name = cfg.model.get("_target_")
    try:
        two_ways = all(hasattr(get_class(name), way) for way in ("encode", "decode"))
    except Exception:  # making the net says what is wrong with its name
        return
    if two_ways and diffuses(cfg):
        raise UserError(f"model._target_={name} is an autoencoder; add recipe=autoencoder to train it")
    if not two_ways and not diffuses(cfg):
        raise UserError(f"recipe=autoencoder needs a net with encode and decode, not {name}; add model=autoencoder")


def _check_precision(cfg: DictConfig) -> None:
    clips = cfg.trainer.gradient_clip_val
    if str(cfg.trainer.precision) in ("16", "16-mixed") and cfg.optimizer.get("fused") and clips:
        raise UserError(
            "trainer.precision=16-mixed scales the loss, and a fused optimizer removes the scale only after the "
            "gradient is clipped; set optimizer.fused=false, or take trainer.precision=bf16-mixed"
        )


def _require(key: str, value: Any, fits: bool, allowed: str) -> None:
    if not fits:
        raise UserError(f"{key} must be {allowed}, got {value!r}")


def _is_list_of_words(value: Any) -> bool:
    return isinstance(value, (list, ListConfig)) and all(isinstance(word, str) for word in value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_int(value)
