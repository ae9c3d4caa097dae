"""Lightning's Trainer from ``cfg.trainer``, with the loggers and callbacks of the run."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.make import make, nodes
from litdiffusion.errors import UserError, first_line
from litdiffusion.runs.log import RowsLogger
from litdiffusion.training.checkpoint_io import SealedCheckpointIO

BAREBONES = ("logger", "log_every_n_steps", "num_sanity_val_steps", "enable_model_summary", "profiler")
"""Settings that are left out with ``barebones=true``, because Lightning refuses them together."""


def make_trainer(
    cfg: DictConfig, loggers: list[Logger], callbacks: Sequence[L.Callback], overrides: Sequence[str] = ()
) -> L.Trainer:
    """The Trainer of ``cfg.trainer`` with these loggers and callbacks.

    Args:
        cfg: the whole config.
        loggers: loggers in their order.
        callbacks: callbacks in their order.
        overrides: overrides of the command line, which are never replaced.

    Raises:
        UserError: Lightning refuses a setting; the message is Lightning's.
    """
    node = OmegaConf.to_container(cfg.trainer, resolve=True)
    typed = {word.lstrip("+~").partition("=")[0].removeprefix("trainer.") for word in overrides}
    node |= {**_validation_interval(node, typed), "precision": cfg.derived.precision}
    node = {key: _with_parts(value, f"trainer.{key}") for key, value in node.items() if key != "_target_"}
    more, plugins = (_as_list(node.pop(key)) for key in ("callbacks", "plugins"))
    if node["barebones"]:
        node = {key: value for key, value in node.items() if key not in BAREBONES or key in typed}
    else:
        own = [] if isinstance(node["logger"], bool) else _as_list(node["logger"])
        node["logger"] = [*loggers, *own] or bool(node["logger"])
        if node["enable_progress_bar"] is None:  # else Lightning adds its own bar to a run without ours
            node["enable_progress_bar"] = any(isinstance(part, ProgressBar) for part in [*callbacks, *more])
    check_srun(plugins)
    chosen = [*allowed_callbacks(node, callbacks), *more]
    try:
        return _trainer_class(cfg.trainer._target_)(**node, callbacks=chosen, plugins=[SealedCheckpointIO(), *plugins])
    except UserError:
        raise
    except Exception as error:  # Lightning raises several kinds of exception
        raise UserError(f"trainer: {first_line(error)}") from error


def check_srun(plugins: Sequence[Any]) -> None:
    """Refuses Slurm's environment among the plugins, as ``trainer=slurm`` has it, for a process outside a job."""
    slurm = any(isinstance(plugin, SLURMEnvironment) for plugin in plugins)
    if slurm and not {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"} <= os.environ.keys():
        raise UserError(
            "trainer=slurm is for processes that srun has started in a job of Slurm: srun litdiffusion train "
            "trainer=slurm ...; here take trainer=ddp, or leave trainer out"
        )


def check_requeue(trainer: L.Trainer, cfg: DictConfig, run_dir: Path) -> None:
    """Refuses a place of Lightning's checkpoint for a requeued job in which the job would not look for it.

    Warns of a run without a name, which several processes of Slurm do not need.
    """
    if SLURMEnvironment.detect() and Path(trainer.default_root_dir).resolve() != run_dir.resolve():
        raise UserError(
            f"trainer.default_root_dir={trainer.default_root_dir}: a job that Slurm requeues keeps its checkpoint "
            f"there, and goes on from the run's folder ({run_dir}); leave trainer.default_root_dir out"
        )
    hydra = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    named = (cfg.name, cfg.sweep) != (None, None) or any("run.dir" in word for word in hydra)
    if _has_slurm(cfg) and trainer.world_size == 1 and not named:
        warnings.warn(
            "a run without a name starts anew in another folder if Slurm requeues its job; name=my_run lets it go on",
            stacklevel=2,
        )


def _has_slurm(cfg: DictConfig) -> bool:
    return any("SLURMEnvironment" in str(plugin) for plugin in cfg.trainer.plugins or ())


def make_loggers(cfg: DictConfig, **context: Any) -> list[Logger]:
    """The dashboards, then the csv logger, so that ``trainer.logger`` is a dashboard if there is one.

    The list is empty if nothing may be written, since loggers make folders. ``context`` is passed to `make`.
    """
    if cfg.dry_run or cfg.trainer.logger is False or cfg.trainer.barebones:
        return []
    loggers = [make(node, f"logger.{name}", **context) for name, node in nodes(cfg, "logger").items()]
    return sorted(loggers, key=lambda logger: isinstance(logger, RowsLogger))


def allowed_callbacks(node: dict[str, Any], callbacks: Sequence[L.Callback]) -> list[L.Callback]:
    """The callbacks without those that a switch of the Trainer turns off, e.g. ``enable_checkpointing=false``."""
    off = [kind for key, kind in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar))
           if node.get(key) is False or node["barebones"]]  # fmt: skip
    return [callback for callback in callbacks if not isinstance(callback, tuple(off))]


def _with_parts(value: Any, where: str) -> Any:
    """An argument of the Trainer, in which every dict with a ``_target_`` is replaced by the part that it describes."""
    if isinstance(value, list):
        return [_with_parts(item, where) for item in value]
    is_part = isinstance(value, dict) and "_target_" in value
    return make(OmegaConf.create(value), where) if is_part else value


def _as_list(value: Any) -> list[Any]:
    """The items of an argument that Lightning takes alone, as a list, or as null."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _validation_interval(node: dict[str, Any], typed: set[str]) -> dict[str, Any]:
    """Lightning's default interval for runs that validate by epochs; the yamls count batches of the whole run."""
    if isinstance(node["val_check_interval"], float) and node["check_val_every_n_epoch"] is None:
        return {"check_val_every_n_epoch": 1}
    if node["check_val_every_n_epoch"] is not None and "val_check_interval" not in typed:
        return {"val_check_interval": 1.0}
    return {}


def _trainer_class(name: str) -> type[L.Trainer]:
    from hydra.utils import get_object

    return get_object(name)


class Quiet(logging.Filter):
    """Removes Lightning's advertisements and its lines about absent hardware from the log."""

    WORDS = ("Tip:", "TPU available", "HPU available", "GPU available: False")

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(word in message for word in self.WORDS)
