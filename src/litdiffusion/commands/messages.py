"""The lines that a run prints at its start and at its end."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from litdiffusion.build import Experiment, Run
from litdiffusion.config import tree
from litdiffusion.config.secrets import masked_keys
from litdiffusion.config.yamls import groups_of_this_job
from litdiffusion.runs.record import RunRecord
from litdiffusion.training.checkpoints import LAST, requeue_checkpoints
from litdiffusion.training.hardware import precision_for
from litdiffusion.training.length import num_items, total_steps


def print_once(experiment: Experiment, line: str) -> None:
    """Prints a line in the first process only."""
    if experiment.trainer.is_global_zero:
        print(line, file=sys.stdout, flush=True)


def show_config(experiment: Experiment) -> None:
    """Prints the config as a tree if ``print_config`` is true."""
    if experiment.cfg.print_config and experiment.trainer.is_global_zero:
        tree.show(experiment.cfg, groups_of_this_job())


def announce(experiment: Experiment, run: Run, what: dict[str, Any]) -> None:
    """Prints data, model size, steps, device (``what``, see `about`) and folder before the first step."""
    trainer, steps, batch_size = experiment.trainer, what["steps"], what["batch_size"]
    print_once(
        experiment,
        f"{what['items']} training items of shape {tuple(what['shape'])}, {what['parameters']:,} parameters, {steps} "
        f"steps{'' if batch_size is None else f' of {batch_size}'} on {trainer.world_size} x {what['device']} in "
        f"{_precision(experiment)}",
    )
    if line := experiment.module.codec.summary(experiment.facts.shape):
        print_once(experiment, line)
    if trainer.max_epochs not in (None, -1) and steps == trainer.max_steps:
        print_once(
            experiment,
            f"trainer.max_steps={trainer.max_steps} ends the run before trainer.max_epochs={trainer.max_epochs}; "
            f"trainer.max_steps=-1 trains all epochs",
        )
    print_once(experiment, f"run folder: {run.dir}")


def about(experiment: Experiment) -> dict[str, Any]:
    """What the run trains and on what, for its record: plain values."""
    trainer, data = experiment.trainer, experiment.data
    return {
        "items": num_items(data, experiment.facts),
        "shape": list(experiment.facts.shape),
        "parameters": sum(p.numel() for p in experiment.module.trained.parameters()),
        "steps": total_steps(trainer, data),
        "batch_size": getattr(data, "batch_size", None),
        "processes": trainer.world_size,
        "device": trainer.strategy.root_device.type,
    }


def _precision(experiment: Experiment) -> str:
    """The precision, with the reason where ``auto`` chose float32 for images."""
    setting = experiment.cfg.trainer
    precision, reason = precision_for(setting.precision, setting.accelerator, experiment.facts.shape)
    return f"{precision} ({reason})" if reason else str(precision)


def report(experiment: Experiment, run: Run) -> None:
    """Prints the summaries of the callbacks and the paths of pictures and checkpoint."""
    for line in summaries(experiment):
        print_once(experiment, line)
    if (run.dir / "pictures").is_dir():
        print_once(experiment, f"pictures:   {run.dir / 'pictures'}")
    path = run.dir / "checkpoints" / LAST
    print_once(experiment, f"checkpoint: {path if path.is_file() else 'none'}")


def summaries(experiment: Experiment) -> list[str]:
    """What the callbacks say at the end of a run, a line each."""
    lines = (getattr(callback, "summary", str)() for callback in experiment.trainer.callbacks)
    return [line for line in lines if line]


def report_complete(record: RunRecord, metric: str, folder: Path) -> None:
    """Prints that a run is complete."""
    value = record.metrics.get(metric)
    known = "" if value is None else f", {metric} {value:.6g}"
    print(
        f"{folder} is complete: {record.step} steps{known}; nothing to do (resume=false trains a new run beside it, "
        f"a larger trainer.max_steps or budget continues it)",
        flush=True,
    )


def other_hardware(record: RunRecord, hardware: dict[str, str | int]) -> str:
    """A warning of what differs from the attempt before; empty if nothing does."""
    before = record.hardware[-1] if record.hardware else {}
    changed = [f"{name} {before[name]} -> {now}" for name, now in hardware.items() if before.get(name, now) != now]
    if not changed:
        return ""
    return (
        f"warning: other than in the attempt before: {', '.join(changed)}; the bits may differ from those of a run "
        f"that was never stopped"
    )


def how_to_continue(run: Run, cfg: DictConfig, config: dict[str, Any]) -> str:
    """The path of the last good checkpoint, the command that continues from it, and what to type for a secret."""
    path = next(iter(requeue_checkpoints(run.dir)), run.dir / "checkpoints" / LAST)
    kept = f"Last good checkpoint: {path}" if path.is_file() else "No checkpoint was written yet"
    keys = masked_keys(config)
    secrets = f" (type the secret of {', '.join(keys)} again, which was not stored)" if keys else ""
    if (cfg.name, cfg.sweep) != (None, None):
        return f"{kept}; the same command continues from there{secrets}"
    return f"{kept}; continue with the same command and hydra.run.dir={run.dir}{secrets}"
