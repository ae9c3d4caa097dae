"""Trains a run from its config to its metric."""

import logging
import warnings
from dataclasses import replace
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from litdiffusion.build import Experiment, Run, build
from litdiffusion.callbacks import Stopped
from litdiffusion.commands.attempts import Attempt
from litdiffusion.commands.budget import with_budget
from litdiffusion.commands.failures import errors_in_words
from litdiffusion.commands.memory import too_large
from litdiffusion.commands.messages import (
    about,
    announce,
    how_to_continue,
    other_hardware,
    print_once,
    report,
    report_complete,
    show_config,
    summaries,
)
from litdiffusion.commands.planning import describe, leave_no_folder, make_plan
from litdiffusion.commands.pushing import check_push, push_at_end
from litdiffusion.commands.rehearsal import rehearsal
from litdiffusion.commands.resuming import Start, check_complete, checkpoint_to_start_from, same_data
from litdiffusion.commands.stages import first_stage, with_autoencoder
from litdiffusion.config.checks import check_disk
from litdiffusion.config.identity import action_for
from litdiffusion.config.keys import MEASURED
from litdiffusion.config.public import config_and_digests, masked_command
from litdiffusion.config.trainer import Quiet
from litdiffusion.data.identity import Identity
from litdiffusion.errors import Pruned, TrainingError, is_out_of_memory
from litdiffusion.reports.quietly import write_quietly
from litdiffusion.reports.run import REPORT
from litdiffusion.runs.dashboards import alert, describe_run, finish
from litdiffusion.runs.files import fresh
from litdiffusion.runs.log import keep_rows
from litdiffusion.runs.record import read_record
from litdiffusion.sweeps.pruning import pruned_by_wandb
from litdiffusion.training.checkpoints import requeue_checkpoints
from litdiffusion.training.hardware import numerics

HARMLESS_WARNINGS = (
    ".*does not have many workers.*",
    ".*LeafSpec.*is deprecated.*",
    "Found .* module.s. in eval mode.*",  # the EMA weights, which stay in eval mode
    "Experiment logs directory .* exists and is not empty.*",  # Hydra's own files
    "Checkpoint directory .* exists and is not empty.*",
    ".*sync_dist=True.*",  # validation sums are already reduced over processes
    ".*The number of training batches .* is smaller than the logging interval.*",  # rows count steps
    ".*when logging on epoch level in distributed setting.*",
    "The dirpath has changed from .*",  # a run from ckpt_path has best checkpoints of its own
    "Be aware that when using .ckpt_path., callbacks used to create the checkpoint .*",  # callbacks are the config's
)


def train(cfg: DictConfig, run: Run) -> float | None:
    """Builds and trains a run; returns the final ``cfg.metric``, which sweeps compare.

    An unfinished run of the same config in the folder is resumed. The metric of a complete run is returned without
    training. After SIGTERM or SIGINT the process exits with 128 + the signal, so that schedulers see it as unfinished.
    ``trainer.fast_dev_run`` trains in a temporary folder.

    Raises:
        UserError: bad input, before training starts.
        TrainingError: training failed; the message names the last good checkpoint.
    """
    _silence_lightning_advice()
    if (cfg.dry_run or cfg.trainer.fast_dev_run) and (first := first_stage(cfg, run)):
        rank_zero_only(print)("codec.experiment comes first; without its autoencoder only that stage can be tried")
        return train(*first)
    if cfg.trainer.fast_dev_run and not cfg.dry_run:
        return _fast_dev_run(cfg, run)
    is_rank_zero = rank_zero_only.rank == 0
    if is_rank_zero and not cfg.resume and not cfg.dry_run and read_record(run.dir) is not None:
        run = replace(run, dir=fresh(run.dir))
    if first := first_stage(cfg, run):
        rank_zero_only(print)(f"first stage: experiment={cfg.codec.experiment} in {first[1].dir}")
        train(*first)
        cfg = with_autoencoder(cfg, first[1])
    cfg = with_budget(cfg, run)
    if cfg.dry_run:
        return _dry_run(cfg, run)
    config, texts = config_and_digests(cfg)
    action = action_for(run.dir, config, texts)
    check_push(cfg, run)
    if action == "complete":
        record = read_record(run.dir)
        report_complete(record, cfg.metric, run.dir)
        if is_rank_zero and cfg.report and not (run.dir / REPORT).is_file():  # the run was killed before it was written
            write_quietly(run.dir)
        push_at_end(cfg, run)
        return record.metrics.get(cfg.metric)
    experiment = build(cfg, replace(run, measured=_measured_before(run)))
    plan = make_plan(experiment)
    check_disk(plan.disk, plan.disk_use, run.dir)
    attempt = Attempt(run, config, is_rank_zero, texts)
    with attempt.locked(), experiment.interrupts.listening():
        try:
            start = checkpoint_to_start_from(experiment, run, config)
            data = same_data(experiment, run) if start.own else experiment.facts.identity()
            with attempt.recorded(experiment.trainer.world_size):
                value = _run_attempt(experiment, run, attempt, start, data)
            push_at_end(cfg, run)
            return value
        except TrainingError as error:
            raise TrainingError(f"{error}. {how_to_continue(run, cfg, config)}") from error
        except Stopped as stop:
            print_once(experiment, f"stopped by {stop}. {how_to_continue(run, cfg, config)}")
            # 0 in other processes, because Lightning's launcher treats any other status of a child as a crash. That is
            # right before the processes have met: the first one would wait for half an hour.
            status = 128 + stop.signum if is_rank_zero or not experiment.interrupts.shared else 0
            raise SystemExit(status) from None
        finally:
            if is_rank_zero and cfg.report:
                _write_page(run)


def _write_page(run: Run) -> None:
    """Writes ``report.html`` of a run that has just ended in any way, if it has a record."""
    try:
        if read_record(run.dir) is not None:
            write_quietly(run.dir)
    except Stopped as stop:  # the run has ended before
        raise SystemExit(128 + stop.signum) from None


def _measured_before(run: Run) -> dict[str, Any]:
    """What the run has measured on its data, if it has a checkpoint to continue from: its weights belong to that."""
    record = read_record(run.dir)
    kept = [*(run.dir / "checkpoints").glob("*.ckpt"), *requeue_checkpoints(run.dir)]
    return record.measured if record is not None and kept else {}


def _run_attempt(experiment: Experiment, run: Run, attempt: Attempt, start: Start, data: Identity) -> float | None:
    """Trains from ``start`` and records the result; returns the run's metric."""
    trainer, metric = experiment.trainer, experiment.cfg.metric
    _begin(experiment, run, attempt, start, data)
    steps = _fit(experiment, run, start)
    numbers = trainer.callback_metrics.items()
    metrics = {name: float(value) for name, value in numbers if not name.startswith("time/")}
    attempt.complete(steps, metrics, experiment.cfg.derived.mode, summaries(experiment))
    report(experiment, run)
    value = trainer.callback_metrics.get(metric)
    return None if value is None else float(value)


def _begin(experiment: Experiment, run: Run, attempt: Attempt, start: Start, data: Identity) -> None:
    """Records the attempt, cuts metrics.csv at the step of ``start`` and prints the run."""
    trainer = experiment.trainer
    hardware = numerics(trainer.strategy.root_device, trainer.world_size, experiment.cfg.derived.precision)
    record = read_record(run.dir)
    measured = {key: experiment.module.description["config"]["derived"][key] for key in MEASURED}
    what = about(experiment)
    count = attempt.begin(start.step, hardware, data, measured, what)
    if start.own and record is not None and (line := other_hardware(record, hardware)):
        print_once(experiment, line)
    if start.own or count > 1:
        print_once(experiment, f"resuming {run.dir} from step {start.step} (attempt {count})")
    if attempt.is_rank_zero and (line := keep_rows(run.dir, start.step if start.own else 0, start.rows)):
        print_once(experiment, f"warning: {line}")
    with masked_command():  # dashboards record the command line
        describe_run(experiment.trainer, experiment.module.description["config"])
    show_config(experiment)
    announce(experiment, run, what)


def _fit(experiment: Experiment, run: Run, start: Start) -> int:
    """Runs Lightning's ``fit`` and returns the number of steps; always reports the final status to dashboards."""
    trainer, status = experiment.trainer, "failed"
    try:
        with errors_in_words(trainer, start.step):
            trainer.fit(experiment.module, experiment.data, ckpt_path=start.path, weights_only=True)
        steps = check_complete(experiment, run)
        status = "complete"
        return steps
    except TrainingError as error:
        alert(trainer, f"{run.name} failed", str(error))
        raise
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    except Stopped as stop:
        status = "stopped"
        if pruned := pruned_by_wandb(trainer, experiment.cfg.sweep, experiment.cfg.metric):
            status = "pruned"
            raise pruned from stop
        raise
    except Pruned:
        status = "pruned"
        raise
    finally:
        finish(trainer, status, experiment.cfg.metric)
    # Here, where no traceback holds the tensors of the failed step any more.
    raise TrainingError(too_large(experiment))


def _dry_run(cfg: DictConfig, run: Run) -> None:
    experiment = build(cfg, run)
    show_config(experiment)
    print_once(experiment, describe(experiment, make_plan(experiment), run))
    leave_no_folder(run.dir)


def _fast_dev_run(cfg: DictConfig, run: Run) -> None:
    """Trains and validates one batch in a temporary folder."""
    with rehearsal(cfg, run) as experiment:
        show_config(experiment)
        experiment.trainer.fit(experiment.module, experiment.data)
    steps = experiment.trainer.global_step
    print_once(experiment, f"fast_dev_run: {steps} step{'s' * (steps != 1)} trained and validated; nothing was kept")
    leave_no_folder(run.dir)


def _silence_lightning_advice() -> None:
    """Hides Lightning's advice on settings that this project chooses on purpose."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(Quiet())
    logging.getLogger("lightning.pytorch").propagate = False  # Hydra's handler would repeat each line
    for message in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message)
