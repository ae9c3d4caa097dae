"""Checks of single settings before any part is built, so that a wrong value is refused at once."""

import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from litdiffusion.data import Facts
from litdiffusion.errors import UserError
from litdiffusion.runs.record import FILE as RECORD
from litdiffusion.runs.record import how_to_leave

GUIDANCE = 1.5
LARGEST_SEED = 2**32 - 1  # numpy's limit
OWN = ("litdiffusion.", "lightning.", "torch.")
"""Packages whose arguments are checked."""
SWITCHES = (
    *("allow_changed_data", "clip_samples", "compile"),
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
    conditional = cfg.conditional
    _require("conditional", conditional, conditional == "auto" or isinstance(conditional, bool), "true, false or auto")
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


def num_classes_of(cfg: DictConfig, facts: Facts) -> int:
    """Number of classes that the net learns: those of the data if the run is conditional, else 0.

    ``conditional=auto`` is true for labelled images (C, H, W), if the net has an argument ``num_classes``.

    Raises:
        UserError: the data have no class labels or some out of range, or the net takes no classes.
    """
    class_label, num_classes = facts.train.class_label, facts.num_classes
    labelled_images = class_label is not None and num_classes > 1 and len(facts.shape) == 3
    # `in cfg.model` would compute the value, ${derived.num_classes}, which calls this function again and again.
    takes_classes = "num_classes" in set(cfg.model)
    if not (labelled_images and takes_classes if cfg.conditional == "auto" else cfg.conditional):
        return 0
    if class_label is None and facts.why_no_classes:
        raise UserError(f"conditional=true needs classes, but there are none: {facts.why_no_classes}")
    if class_label is None or num_classes < 1:
        raise UserError(
            "conditional=true needs labelled data, these data have no classes; take data=digits, mnist or another "
            "labelled set, or conditional=false"
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


def guidance_of(cfg: DictConfig, weight: float | str | None = "auto") -> float:
    """The weight of classifier-free guidance (see `GuidedDenoiser`) for samples of a model with this config.

    ``auto`` is `GUIDANCE` for images of a model that knows p(x) beside p(x | class), else 1, which is none.

    Raises:
        UserError: no finite number, or a weight other than 1 for a model without classes, or without p(x).
    """
    classes, drops = cfg.derived.num_classes, cfg.class_dropout
    if weight == "auto":
        return GUIDANCE if classes and drops and len(cfg.derived.shape) == 3 else 1.0
    _require("guidance", weight, _is_number(weight) and math.isfinite(weight), "a finite number, or auto; 1 is none")
    if weight != 1 and not classes:
        raise UserError(f"guidance={weight} needs a model that was trained with conditional=true; leave it out")
    if weight != 1 and not drops:
        raise UserError(f"guidance={weight} needs a model that was trained with class_dropout above 0; leave it out")
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
