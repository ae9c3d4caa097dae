"""What a run prints: its plan in a line, where it stands, what it left."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from litdiffusion.build import Experiment, Run
from litdiffusion.config import tree
from litdiffusion.config.yamls import groups_of_this_job
from litdiffusion.runs.record import RunRecord
from litdiffusion.training.checkpoints import LAST
from litdiffusion.training.length import num_items, total_steps


def print_once(experiment: Experiment, line: str) -> None:
    """Prints a line, once for all processes."""
    if experiment.trainer.is_global_zero:
        print(line, file=sys.stdout, flush=True)


def show_config(experiment: Experiment) -> None:
    """Prints the config as a tree, where ``print_config`` asks for it."""
    if experiment.cfg.print_config and experiment.trainer.is_global_zero:
        tree.show(experiment.cfg, groups_of_this_job())


def announce(experiment: Experiment, run: Run) -> None:
    """What is trained on what, before the first step."""
    trainer, data = experiment.trainer, experiment.data
    steps, batch_size = total_steps(trainer, data), getattr(data, "batch_size", None)
    parameters = sum(p.numel() for p in experiment.module.denoiser.parameters())
    print_once(
        experiment,
        f"{num_items(data, experiment.facts)} training items of shape {tuple(experiment.facts.shape)}, {parameters:,} "
        f"parameters, {steps} steps{'' if batch_size is None else f' of {batch_size}'} on {trainer.world_size} x "
        f"{trainer.strategy.root_device.type} in {experiment.cfg.derived.precision}",
    )
    if trainer.max_epochs not in (None, -1) and steps == trainer.max_steps:
        print_once(
            experiment,
            f"trainer.max_steps={trainer.max_steps} ends the run before trainer.max_epochs={trainer.max_epochs} does; "
            f"trainer.max_steps=-1 counts epochs alone",
        )
    print_once(experiment, f"run folder: {run.dir}")


def report(experiment: Experiment, run: Run) -> None:
    """What the callbacks say at the end, and where pictures and checkpoint lie."""
    for callback in experiment.trainer.callbacks:
        if line := getattr(callback, "summary", str)():
            print_once(experiment, line)
    if (run.dir / "pictures").is_dir():
        print_once(experiment, f"pictures:   {run.dir / 'pictures'}")
    path = run.dir / "checkpoints" / LAST
    print_once(experiment, f"checkpoint: {path if path.is_file() else 'none'}")


def report_complete(record: RunRecord, metric: str, folder: Path) -> None:
    """Says that a run has nothing left to do."""
    value = record.metrics.get(metric)
    known = "" if value is None else f", {metric} {value:.6g}"
    print(
        f"{folder} is complete: {record.step} steps{known}; nothing to do (resume=false trains afresh beside it, a "
        f"larger trainer.max_steps goes on)",
        flush=True,
    )


def how_to_continue(run: Run, cfg: DictConfig) -> str:
    """Where the last good checkpoint lies, and what to type to go on from it."""
    path = run.dir / "checkpoints" / LAST
    kept = f"Last good checkpoint: {path}" if path.is_file() else "No checkpoint was written yet"
    if (cfg.name, cfg.sweep) != (None, None):
        return f"{kept}; the same command goes on from there"
    return f"{kept}; go on with the same command and hydra.run.dir={run.dir}"
