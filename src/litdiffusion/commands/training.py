"""A run from its config to its result."""

import logging
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from litdiffusion.build import Experiment, Run, build
from litdiffusion.callbacks import Stopped
from litdiffusion.commands.attempts import Attempt, how_to_continue, refusal
from litdiffusion.commands.planning import check_room, describe, items, leave_no_folder, make_plan, total_steps
from litdiffusion.config import tree as config_tree
from litdiffusion.config.origins import groups_of_this_job
from litdiffusion.config.trainer import Quiet
from litdiffusion.errors import Pruned, TrainingError, UserError
from litdiffusion.runs.dashboards import describe_run, finish
from litdiffusion.runs.log import keep_rows
from litdiffusion.runs.record import action_for, fresh_folder, longer, read_record
from litdiffusion.training.checkpoints import LAST, check_fits, newest_checkpoint, read_checkpoint
from litdiffusion.training.position import Position

HARMLESS = (
    ".*does not have many workers.*",
    ".*LeafSpec.*is deprecated.*",
    "Found .* module.s. in eval mode.*",  # the average of the weights, on purpose
    "Experiment logs directory .* exists and is not empty.*",  # Hydra's own files; an earlier run is refused
    "Checkpoint directory .* exists and is not empty.*",
    ".*sync_dist=True.*",  # of validation they are summed already
    ".*The number of training batches .* is smaller than the logging interval.*",  # rows count steps, not epochs
    ".*when logging on epoch level in distributed setting.*",
)


def train(cfg: DictConfig, run: Run) -> float | None:
    """Builds and trains; returns ``cfg.metric`` at the end, for sweeps.

    A folder with an unfinished run of the same config is gone on with; of a complete one the metric is returned. A
    run that is told to stop ends the process with 128 + the signal, so that schedulers see it as unfinished.
    ``trainer.fast_dev_run`` trains in a folder that is gone afterwards.

    Raises:
        UserError: bad input, before training starts.
        TrainingError: a run that could not go on; says where its last good checkpoint is.
    """
    _quieten()
    _fill_in(cfg)
    if cfg.dry_run:
        return _dry_run(cfg, run)
    if cfg.trainer.fast_dev_run:
        return _fast_dev_run(cfg, run)
    config = plain(cfg)
    leads = rank_zero_only.rank == 0
    if leads and not cfg.resume and read_record(run.dir) is not None:
        run = replace(run, dir=fresh_folder(run.dir))
    if action_for(run.dir, config) == "complete":
        return _completed(cfg, run)
    experiment = build(cfg, run)
    check_room(make_plan(cfg, experiment), run.dir)
    attempt = Attempt(run, config, leads)
    with attempt.locked(), experiment.interrupts.listening():
        start = _start(cfg, experiment, run, config)
        try:
            with attempt.watched(experiment.trainer.world_size):
                return _attempted(cfg, experiment, run, attempt, start)
        except TrainingError as error:
            raise TrainingError(f"{error}. {_last_checkpoint(run, cfg)}") from error
        except Stopped as stop:
            _tell(experiment, f"stopped by {stop}. {_last_checkpoint(run, cfg)}")
            # The first process must not take the others, which stop with it, for broken.
            raise SystemExit(128 + stop.signum if leads else 0) from None


def _fill_in(cfg: DictConfig) -> None:
    """A group that was taken out by ``group=null`` is an empty one."""
    for group in ("callbacks", "logger", "metrics", "lr_schedule"):
        if cfg.get(group) is None:
            OmegaConf.update(cfg, group, {}, force_add=True)


def _fast_dev_run(cfg: DictConfig, run: Run) -> None:
    """One batch of everything; what it writes is gone afterwards, and a run in the same folder is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = build(cfg, replace(run, dir=Path(folder) / "run"))
        make_plan(cfg, experiment)
        _show(cfg, experiment)
        with experiment.interrupts.listening():
            try:
                experiment.trainer.fit(experiment.module, experiment.data)
            except Stopped as stop:
                raise SystemExit(128 + stop.signum) from None
    steps = experiment.trainer.global_step
    _tell(experiment, f"fast_dev_run: {steps} step{'s' * (steps != 1)} trained and validated; nothing was kept")
    leave_no_folder(run.dir)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as it was composed, resolved, without what is filled in while a run is built."""
    written = OmegaConf.to_container(cfg, resolve=False)
    written.pop("derived", None)
    return OmegaConf.to_container(OmegaConf.create(_escaped(written)), resolve=True)


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
        keep_rows(run.dir, step if own else 0)
    count = attempt.begin(step)
    if own or count > 1:
        _tell(experiment, f"going on with {run.dir} from step {step} (attempt {count})")
    describe_run(trainer, experiment.module.record["config"])
    _show(cfg, experiment)
    _announce(cfg, experiment, run)
    status = "failed"
    try:
        trainer.fit(experiment.module, experiment.data, ckpt_path=start, weights_only=True)
        steps = check_complete(experiment, run)
        status = "complete"
    except Stopped:
        status = "stopped"
        raise
    except Pruned:
        status = "pruned"
        raise
    except Exception as error:
        line = refusal(error)
        if line is None:
            raise
        raise (TrainingError if trainer.global_step > step else UserError)(line) from error
    finally:
        finish(trainer, status)
    numbers = trainer.callback_metrics.items()
    metrics = {name: float(value) for name, value in numbers if not name.startswith("time/")}
    attempt.complete(steps, metrics, cfg.derived.mode)
    _report(experiment, run)
    value = trainer.callback_metrics.get(cfg.metric)
    return None if value is None else float(value)


def check_complete(experiment: Experiment, run: Run) -> int:
    """The steps of a run that has done what was asked: all steps or epochs, its time, or until a callback ended it.

    Of processes that Lightning starts and ends itself (ddp_spawn, ddp_notebook) only what they wrote is known here.

    Raises:
        TrainingError: it has not, although Lightning's ``fit`` returned.
    """
    trainer, path = experiment.trainer, run.dir / "checkpoints" / LAST
    if trainer.world_size > 1 and trainer.state.finished and trainer.global_step == 0 and path.is_file():
        content = read_checkpoint(path)
        if content["progress"]["finished"]:
            return content["global_step"]
    steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    epochs = trainer.max_epochs not in (None, -1) and trainer.current_epoch >= trainer.max_epochs
    if not (trainer.state.finished and (steps or epochs or trainer.should_stop)):
        raise TrainingError(
            f"training ended after {trainer.global_step} of {total_steps(experiment):,} steps although nothing asked "
            f"for an end; a callback or limit_train_batches={trainer.limit_train_batches} may have cut it short"
        )
    return trainer.global_step


def _start(cfg: DictConfig, experiment: Experiment, run: Run, config: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from: the run's own, else the one that was asked for, else none.

    Of its own checkpoints those that lack nothing are left alone, unless the run was made longer: what follows the last
    step, its validation and the samples, may not have been recorded.

    Raises:
        UserError: it belongs to another model or process, or has all of its steps or epochs.
    """
    trainer, record = experiment.trainer, read_record(run.dir)
    prolonged = record is not None and longer(record, config)

    def usable(content: dict[str, Any]) -> bool:
        return _length(content, trainer) is None and (prolonged or not content["progress"]["finished"])

    path, lines = newest_checkpoint(run.dir / "checkpoints", usable)
    for line in lines:
        _tell(experiment, f"warning: {line}")
    if path is None and cfg.ckpt_path is not None:
        path = Path(cfg.ckpt_path)
        if length := _length(read_checkpoint(path), trainer):
            raise UserError(
                f"{path} has all of its {length}; to go on raise trainer.max_{length.partition(' ')[2]} above that "
                f"(with lr_schedule=constant, since a cosine has ended at zero)"
            )
    if path is not None:
        check_fits(read_checkpoint(path), experiment.module, path)
    return path


def _length(content: dict[str, Any], trainer: L.Trainer) -> str | None:
    """``4 steps`` or ``2 epochs``, where a checkpoint has all that the trainer would do; None: something is left."""
    steps, position = content["global_step"], Position(*content["progress"]["position"])
    epochs = position.epoch + position.last
    if trainer.max_steps != -1 and steps >= trainer.max_steps:
        return f"{steps} steps"
    if trainer.max_epochs not in (None, -1) and epochs >= trainer.max_epochs:
        return f"{epochs} epochs"
    return None


def _dry_run(cfg: DictConfig, run: Run) -> None:
    experiment = build(cfg, run)
    _show(cfg, experiment)
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


def _show(cfg: DictConfig, experiment: Experiment) -> None:
    if cfg.print_config and experiment.trainer.is_global_zero:
        config_tree.show(cfg, groups_of_this_job())


def _announce(cfg: DictConfig, experiment: Experiment, run: Run) -> None:
    trainer, size = experiment.trainer, getattr(experiment.data, "batch_size", None)
    parameters = sum(p.numel() for p in experiment.module.denoiser.parameters())
    _tell(
        experiment,
        f"{items(experiment)} training items of shape {tuple(experiment.facts.shape)}, {parameters:,} parameters, "
        f"{total_steps(experiment)} steps{'' if size is None else f' of {size}'} on {trainer.world_size} x "
        f"{trainer.strategy.root_device.type} in {cfg.trainer.precision}",
    )
    if (
        trainer.max_steps != -1
        and trainer.max_epochs not in (None, -1)
        and total_steps(experiment) == trainer.max_steps
    ):
        _tell(
            experiment,
            f"trainer.max_steps={trainer.max_steps} ends the run before trainer.max_epochs={trainer.max_epochs} does; "
            f"trainer.max_steps=-1 counts epochs alone",
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
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(Quiet())
    logging.getLogger("lightning.pytorch").propagate = False  # it has a handler of its own; Hydra's would repeat it
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
