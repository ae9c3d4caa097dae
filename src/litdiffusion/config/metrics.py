"""What a run measures its samples by, and which numbers it will have."""

import warnings

from omegaconf import DictConfig

from litdiffusion.config.make import make, nodes
from litdiffusion.data import Facts
from litdiffusion.errors import UserError, nearest
from litdiffusion.measure.quality import Quality
from litdiffusion.training.quartiles import NAMES

METRICS = ("val/loss", *(f"val/loss_{name}" for name in NAMES), "train/loss")
"""Numbers of every run that can be its ``metric``."""
LOGGED = ("val/best_loss", "likelihood/bits_per_dimension", "likelihood/nats", "likelihood/nats_best")
"""Further numbers that a callback can monitor."""


def make_quality(cfg: DictConfig, data: Facts, required: bool = True) -> Quality | None:
    """The ``metrics`` of the config for this data; None where the group is empty.

    Metrics that do not fit the data are refused where they are ``required``. Else a warning says why there are none.
    """
    if not cfg.get("metrics"):
        return None
    try:
        return make(cfg.metrics, "metrics").attach(data)
    except UserError as error:
        if required:
            raise
        warnings.warn(f"samples are not measured: {error}", stacklevel=2)
        return None


def check_metric(cfg: DictConfig, quality: Quality | None) -> None:
    """Refuses a ``metric`` that this run will not have."""
    callbacks, names = nodes(cfg, "callbacks"), quality.names if quality else ()
    live = [f"quality/{name}" for name in names if "live_quality" in callbacks]
    vectors = quality is not None and len(quality.data.shape) == 1
    final = [f"samples/{name}" for name in names if vectors and "final_samples" in callbacks]
    known = [*METRICS, *live, *final]
    if cfg.metric not in known:
        raise UserError(f"metric must be one of {', '.join(known)}, got {cfg.metric!r}")


def check_monitors(cfg: DictConfig, quality: Quality | None) -> None:
    """Refuses a callback of Lightning's that monitors a number which this run will not have.

    A callback of the user's own may log any number, so with one of these nothing is refused.
    """
    callbacks = nodes(cfg, "callbacks")
    if any(str(node._target_).partition(".")[0] not in ("lightning", "litdiffusion") for node in callbacks.values()):
        return
    known = [*METRICS, *LOGGED, *(f"quality/{name}" for name in (quality.names if quality else ()))]
    for name, node in callbacks.items():
        monitor = node.get("monitor")
        if monitor is not None and not str(monitor).startswith(("quality/", "lr-")) and monitor not in known:
            raise UserError(
                f"callbacks.{name}.monitor={monitor} is not logged by this run{nearest(str(monitor), known)} (it logs "
                f"{', '.join(known)})"
            )
