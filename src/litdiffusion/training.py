"""A run from its config to its result."""

import logging
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from litdiffusion.attempts import Attempt, how_to_continue
from litdiffusion.build import Experiment, Run, build
from litdiffusion.csv_log import keep_rows
from litdiffusion.errors import Pruned, TrainingError, UserError
from litdiffusion.loggers import describe_run, finish
from litdiffusion.modules.checkpoints import LAST, check_fits, newest_checkpoint, read_checkpoint
from litdiffusion.modules.interrupts import Stopped
from litdiffusion.planning import check_room, describe, leave_no_folder, make_plan
from litdiffusion.runs import action_for, fresh_folder, read_record

HARMLESS = (
    ".*does not have many workers.*",
    ".*LeafSpec.*is deprecated.*",
    "Found .* module.s. in eval mode.*",  # the average of the weights, on purpose
    "Using ModelCheckpoint with manual optimization.*",
    "Experiment logs directory .* exists and is not empty.*",  # Hydra's own files; an earlier run is refused
    "Checkpoint directory .* exists and is not empty.*",
    ".*sync_dist=True.*",  # of validation they are summed already
)


def train(cfg: DictConfig, run: Run) -> float | None:
    """Builds and trains; returns ``cfg.metric`` at the end, for sweeps.

    A folder with an unfinished run of the same config is gone on with; of a complete one the metric is returned. A
    run that is told to stop ends the process with 128 + the signal, so that schedulers see it as unfinished.

    Raises:
        UserError: bad input, before training starts.
        TrainingError: a run that could not go on; says where its last good checkpoint is.
    """
    _quieten()
    if cfg.dry_run:
        return _dry_run(cfg, run)
    config = plain(cfg)
    leads = rank_zero_only.rank == 0
    if leads and not cfg.resume and read_record(run.dir) is not None:
        run = replace(run, dir=fresh_folder(run.dir))
    if action_for(run.dir, config) == "complete":
        return _completed(cfg, run)
    experiment = build(cfg, run)
    check_room(make_plan(cfg, experiment), run.dir)
    attempt = Attempt(run, config, leads)
    with attempt.locked(), experiment.module.interrupts.listening():
        start = _start(cfg, experiment, run)
        try:
            with attempt.watched(experiment.trainer.world_size):
                return _attempted(cfg, experiment, run, attempt, start)
        except TrainingError as error:
            raise TrainingError(f"{error}. {_last_checkpoint(run, cfg)}") from error
        except Stopped as stop:
            _tell(experiment, f"stopped by {stop}. {_last_checkpoint(run, cfg)}")
            # The first process must not take the others, which stop with it, for broken.
            raise SystemExit(128 + stop.signum if leads else 0) from None


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as it was composed, resolved, without what is filled in while a run is built."""
    written = _escaped(OmegaConf.to_container(cfg, resolve=False))
    config = OmegaConf.to_container(OmegaConf.create(written), resolve=True)
    return {key: value for key, value in config.items() if key != "derived"}


def _escaped(node: Any) -> Any:
    """References to what is not known before a run is built stay as they are written."""
    if isinstance(node, dict):
        return {key: _escaped(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_escaped(value) for value in node]
    return node.replace("${", "\\${") if isinstance(node, str) and "${derived." in node else node


def _attempted(cfg: DictConfig, experiment: Experiment, run: Run, attempt: Attempt, start: Path | None) -> float | None:
    trainer = experiment.trainer
    content = None if start is None else read_checkpoint(start)
    own = start is not None and start.is_relative_to(run.dir)
    step = 0 if content is None else content["global_step"]
    if attempt.leads:
        keep_rows(run.dir, content["progress"]["rows"] if own and "progress" in content else 0)
    count = attempt.begin(step)
    if own or count > 1:
        _tell(experiment, f"going on with {run.dir} from step {step} (attempt {count})")
    describe_run(trainer, experiment.module.record["config"])
    _announce(cfg, experiment, run)
    status = "failed"
    try:
        trainer.fit(experiment.module, experiment.data, ckpt_path=start, weights_only=True)
        status = "complete"
    except Stopped:
        status = "stopped"
        raise
    except Pruned:
        status = "pruned"
        raise
    finally:
        finish(trainer, status)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    attempt.complete(trainer.global_step, metrics, cfg.derived.mode)
    _report(experiment, run)
    value = trainer.callback_metrics.get(cfg.metric)
    return None if value is None else float(value)


def _start(cfg: DictConfig, experiment: Experiment, run: Run) -> Path | None:
    """The checkpoint to go on from: the run's own, else the one that was asked for, else none.

    Raises:
        UserError: it belongs to another model or process, or has all of its steps.
    """
    steps, record = experiment.trainer.max_steps, read_record(run.dir)
    path, lines = newest_checkpoint(run.dir / "checkpoints", steps)
    for line in lines:
        _tell(experiment, f"warning: {line}")
    if path is None and record is not None and record.step >= steps and record.config["trainer"]["max_steps"] != steps:
        raise UserError(f"{run.dir} has {record.step} steps already; take trainer.max_steps above that")
    if path is None and cfg.ckpt_path is not None:
        path = Path(cfg.ckpt_path)
        _check_unfinished(read_checkpoint(path), experiment, path)
    if path is not None:
        check_fits(read_checkpoint(path), experiment.module, path)
    return path


def _check_unfinished(content: dict[str, Any], experiment: Experiment, path: Path) -> None:
    if content["global_step"] >= experiment.trainer.max_steps:
        raise UserError(
            f"{path} has all of its {content['global_step']} steps; to go on raise trainer.max_steps above that "
            f"(with lr_schedule=constant, since a cosine has ended at zero)"
        )


def _dry_run(cfg: DictConfig, run: Run) -> None:
    experiment = build(cfg, run)
    _tell(experiment, describe(cfg, experiment, make_plan(cfg, experiment), run))
    leave_no_folder(run.dir)


def _completed(cfg: DictConfig, run: Run) -> float | None:
    record = read_record(run.dir)
    value = record.metrics.get(cfg.metric)
    known = "" if value is None else f", {cfg.metric} {value:.6g}"
    print(
        f"{run.dir} is complete: {record.step} steps{known}; nothing to do (resume=false trains afresh beside it, a "
        f"larger trainer.max_steps goes on)",
        flush=True,
    )
    return value


def _last_checkpoint(run: Run, cfg: DictConfig) -> str:
    path = run.dir / "checkpoints" / LAST
    kept = f"Last good checkpoint: {path}" if path.is_file() else "No checkpoint was written yet"
    return f"{kept}; {how_to_continue(run.dir, (cfg.name, cfg.sweep) != (None, None))}"


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


def _report(experiment: Experiment, run: Run) -> None:
    for callback in experiment.trainer.callbacks:
        if line := getattr(callback, "summary", str)():
            _tell(experiment, line)
    if (run.dir / "pictures").is_dir():
        _tell(experiment, f"pictures:   {run.dir / 'pictures'}")
    path = run.dir / "checkpoints" / LAST
    _tell(experiment, f"checkpoint: {path if path.is_file() else 'none'}")


def _tell(experiment: Experiment, line: str) -> None:
    if experiment.trainer.is_global_zero:
        print(line, file=sys.stdout, flush=True)


def _quieten() -> None:
    """Lightning's advice on things that this project decides for itself."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
