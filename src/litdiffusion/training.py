"""A run from its config to its result."""

import logging
import sys
import warnings
from pathlib import Path

from omegaconf import DictConfig

from litdiffusion.build import Experiment, Run, build
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.loggers import describe_run, finish
from litdiffusion.modules.checkpoints import check_fits, read_checkpoint

CTRL_C, TERMINATED = 130, 143
"""Exit statuses of a run that was told to stop (128 + the signal), so that schedulers see it as unfinished."""

HARMLESS = (
    ".*does not have many workers.*",
    ".*LeafSpec.*is deprecated.*",
    "Found .* module.s. in eval mode.*",  # the average of the weights, on purpose
    "Using ModelCheckpoint with manual optimization.*",
    "Experiment logs directory .* exists and is not empty.*",  # Hydra's own files; an earlier run is refused
    "Checkpoint directory .* exists and is not empty.*",
)


def train(cfg: DictConfig, run: Run) -> float | None:
    """Builds and trains; returns ``cfg.metric`` at the end, for sweeps.

    Raises:
        UserError: bad input, before training starts.
        TrainingError: a run that could not go on; says where its last good checkpoint is.
    """
    _quieten()
    experiment = build(cfg, run)
    if cfg.ckpt_path is not None:
        _check_resume(experiment, cfg.ckpt_path)
    describe_run(experiment.trainer, experiment.module.record["config"])
    _announce(cfg, experiment, run)
    exit_code = 1
    try:
        _fit(experiment, cfg.ckpt_path)
        exit_code = 0
    finally:
        finish(experiment.trainer, exit_code)
    _report(experiment, run.dir)
    value = experiment.trainer.callback_metrics.get(cfg.metric)
    return None if value is None else float(value)


def _fit(experiment: Experiment, ckpt_path: str | None) -> None:
    trainer = experiment.trainer
    try:
        trainer.fit(experiment.module, experiment.data, ckpt_path=ckpt_path, weights_only=True)
    except TrainingError as error:
        raise TrainingError(f"{error}. {_last_checkpoint(experiment)}") from error
    except SystemExit as stop:  # Lightning exits with 1 on Ctrl-C and with nothing on SIGTERM
        _tell(experiment, f"stopped. {_last_checkpoint(experiment)}")
        raise SystemExit(CTRL_C if stop.code else TERMINATED) from None


def _check_resume(experiment: Experiment, path: str) -> None:
    content = read_checkpoint(path)
    check_fits(content, experiment.module, path)
    if content["global_step"] >= experiment.trainer.max_steps:
        raise UserError(
            f"{path} has all of its {content['global_step']} steps; to go on raise trainer.max_steps above that "
            f"(with lr_schedule=constant, since a cosine has ended at zero)"
        )


def _last_path(experiment: Experiment) -> str:
    """The newest checkpoint of the run, or nothing."""
    callbacks = [callback for callback in experiment.trainer.checkpoint_callbacks if callback.monitor is None]
    paths = [Path(callback.format_checkpoint_name({}, callback.filename)) for callback in callbacks]
    return next((str(path) for path in paths if path.is_file()), "")


def _last_checkpoint(experiment: Experiment) -> str:
    path = _last_path(experiment)
    return f"Last good checkpoint: {path} (resume with ckpt_path={path})" if path else "No checkpoint was written yet"


def _announce(cfg: DictConfig, experiment: Experiment, run: Run) -> None:
    trainer, data = experiment.trainer, experiment.data
    parameters = sum(p.numel() for p in experiment.module.denoiser.parameters())
    _tell(
        experiment,
        f"{len(data.train.data)} training items of shape {tuple(data.shape)}, {parameters:,} parameters, "
        f"{trainer.max_steps} steps of {data.batch_size} on {trainer.world_size} x {trainer.strategy.root_device.type} "
        f"in {cfg.trainer.precision}",
    )
    _tell(experiment, f"run folder: {run.dir}")


def _report(experiment: Experiment, folder: Path) -> None:
    for callback in experiment.trainer.callbacks:
        if line := getattr(callback, "summary", str)():
            _tell(experiment, line)
    if (folder / "pictures").is_dir():
        _tell(experiment, f"pictures:   {folder / 'pictures'}")
    _tell(experiment, f"checkpoint: {_last_path(experiment) or 'none'}")


def _tell(experiment: Experiment, line: str) -> None:
    if experiment.trainer.is_global_zero:
        print(line, file=sys.stdout, flush=True)


def _quieten() -> None:
    """Lightning's advice on things that this project decides for itself."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
