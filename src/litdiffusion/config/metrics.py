"""The metrics of a run's samples, and which numbers a run logs."""

import warnings

from omegaconf import DictConfig

from litdiffusion.config.make import make, nodes
from litdiffusion.data import Facts
from litdiffusion.errors import UserError, nearest
from litdiffusion.measure.quality import Quality
from litdiffusion.training.quartiles import NAMES

METRICS = ("val/loss", *(f"val/loss_{name}" for name in NAMES), "train/loss")
"""Values of ``metric`` that every run has."""
LOGGED = ("val/best_loss", "likelihood/bits_per_dimension", "likelihood/nats", "likelihood/nats_best")
"""Further numbers that callbacks can monitor."""


def make_quality(cfg: DictConfig, facts: Facts, required: bool = True) -> Quality | None:
    """The ``metrics`` of the config, attached to the data; None if the group is empty.

    Metrics that do not fit the data raise a UserError if they are ``required``; otherwise a warning gives the reason.
    """
    if not cfg.get("metrics"):
        return None
    try:
        return make(cfg.metrics, "metrics").attach(facts)
    except UserError as error:
        if required:
            raise
        warnings.warn(f"samples are not measured: {error}", stacklevel=2)
        return None


def check_metric(cfg: DictConfig, quality: Quality | None) -> None:
    """Refuses a ``metric`` that this run will not measure."""
    callbacks, names = nodes(cfg, "callbacks"), quality.names if quality else ()
    live = [f"quality/{name}" for name in names if "live_quality" in callbacks]
    images = quality is None or len(quality.data.shape) == 3
    final = [f"samples/{name}" for name in names if not images and "final_samples" in callbacks]
    known = [*METRICS, *live, *final]
    if cfg.metric not in known:
        raise UserError(f"metric must be one of {', '.join(known)}, got {cfg.metric!r}")


def check_monitors(cfg: DictConfig, quality: Quality | None) -> None:
    """Refuses a Lightning callback that monitors a number which this run will not log.

    Refuses nothing if the run has a user's own callback, because such a callback may log any number. Of the names below
    ``quality/``, any is allowed with metrics, because some exist only for some data (``quality/mode_0``).
    """
    callbacks = nodes(cfg, "callbacks")
    if any(str(node._target_).partition(".")[0] not in ("lightning", "litdiffusion") for node in callbacks.values()):
        return
    known = [*METRICS, *LOGGED, *(f"quality/{name}" for name in (quality.names if quality else ()))]
    for name, node in callbacks.items():
        monitor = node.get("monitor")
        free = ("quality/", "lr-") if quality else ("lr-",)
        if monitor is not None and not str(monitor).startswith(free) and monitor not in known:
            raise UserError(
                f"callbacks.{name}.monitor={monitor} is not logged by this run{nearest(str(monitor), known)} (it logs "
                f"{', '.join(known)})"
            )
