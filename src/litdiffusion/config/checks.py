"""All checks before a run starts, in this order; none of them uses the device.

0. `origins.check_keys`, right after composition: unknown and misspelt keys; `identity.action_for`: whether the folder
   holds a run of another config;
1. `check_config`, before any part is built: values of settings, targets of untrusted packages, the run's folder;
2. the constructors: data, codec, schedule, metrics, net, objective, sampler, callbacks, loggers, trainer; the module
   refuses a sampler or an objective that does not fit the process;
3. `check_parts`: metric and monitored numbers, shapes, optimizer and learning rate, number of processes;
4. `check_disk`: free space for the checkpoints;
5. the lock of the folder, then `identity.check_fits`: the checkpoint to start from.
"""

import os
import shutil
from pathlib import Path

import lightning as L
from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.launched import local_tasks
from litdiffusion.config.make import nodes
from litdiffusion.config.metrics import check_metric, check_monitors
from litdiffusion.config.optimizer import check_optimizer
from litdiffusion.config.settings import check_folder, check_network, check_settings
from litdiffusion.config.shapes import DummyOutput, check_shapes
from litdiffusion.config.trust import warn_of_untrusted_packages
from litdiffusion.data import Facts
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import Quality
from litdiffusion.training import TrainingModule
from litdiffusion.training.sharding import is_sharded


def check_config(cfg: DictConfig, run_dir: Path) -> None:
    """Checks the settings before any part is built; makes the run's folder, except for a dry run."""
    check_settings(cfg)
    warn_of_untrusted_packages(OmegaConf.to_container(cfg, resolve=False), cfg.trusted)
    check_network(cfg)  # after the warning, because it imports the net's code
    if not cfg.dry_run:
        check_folder(run_dir)


def check_parts(
    cfg: DictConfig,
    module: TrainingModule,
    facts: Facts,
    quality: Quality | None,
    trainer: L.Trainer,
    steps: float,
    in_sweep: bool,
) -> DummyOutput:
    """Checks that the parts of a run fit each other; returns the net's output for two dummy items.

    Args:
        cfg: config with ``derived`` filled in.
        module: Lightning module of the run.
        facts: facts about the data.
        quality: metrics that measure samples.
        trainer: Trainer of the run, not started.
        steps: optimizer steps of the whole run.
        in_sweep: whether this is a job of a multirun.

    Raises:
        UserError: names the first part that does not fit.
    """
    check_metric(cfg, quality)
    check_monitors(cfg, quality)
    dummy_output = check_shapes(module, facts)
    check_optimizer(cfg, module.trained, steps)
    check_processes(trainer, in_sweep)
    if is_sharded(trainer):
        check_sharded(cfg, trainer)
    return dummy_output


def check_processes(trainer: L.Trainer, in_sweep: bool) -> None:
    """Refuses more processes than cores on a CPU, and in a job of a multirun processes that no launcher has started."""
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        raise UserError(
            f"trainer.devices={trainer.num_devices} is more than the {cores} cores of this machine; lower it"
        )
    world, tasks = trainer.world_size, local_tasks()
    if tasks not in (1, world):
        raise UserError(
            f"hydra.launcher.tasks_per_node={tasks} starts {tasks} processes for a job, which trains on {world}; give "
            f"both the same number: trainer=ddp trainer.devices={tasks}, or hydra.launcher.tasks_per_node={world}"
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if in_sweep and world > 1 and not (environment and environment.creates_processes_externally):
        raise UserError(
            f"the {world} processes of a job of -m must be started by the launcher: hydra/launcher=submitit_local (or "
            f"slurm) hydra.launcher.tasks_per_node={trainer.num_devices}; or start the jobs by a shell loop without -m"
        )


def check_sharded(cfg: DictConfig, trainer: L.Trainer) -> None:
    """Refuses what one process of several cannot do alone with shards of the weights: it would wait for ever."""
    if trainer.strategy._state_dict_type != "full":
        raise UserError("trainer.strategy.state_dict_type must be full: a run goes on from one file, as sample.py does")
    if "Muon" in cfg.optimizer.get("_target_", ""):
        raise UserError("optimizer=muon needs whole matrices, and trainer=fsdp divides them; take optimizer=adamw")
    if trainer.world_size == 1:
        return
    alone = [
        f"callbacks.{name}=null"
        for name, node in nodes(cfg, "callbacks").items()
        if str(node.get("_target_", "")).startswith("litdiffusion.callbacks.") and not _acts_together(node._target_)
    ]
    if alone:
        raise UserError(
            f"trainer=fsdp divides the net over {trainer.world_size} processes, so none of them can draw or measure "
            f"alone; add {' '.join(alone)} (litdiffusion sample and evaluate read the checkpoints)"
        )
    size, world, batch = cfg.data.get("val_size") or 0, trainer.world_size, cfg.data.get("batch_size") or 1
    if size % world and -(-(size // world) // batch) != -(-(size // world + 1) // batch):
        raise UserError(f"data.val_size={size} gives some processes a batch more; take a multiple of {world}")


def _acts_together(target: str) -> bool:
    return target.rpartition(".")[2] in ("LastCheckpoint", "StepProgress")


def check_disk(needed: int, what: str, folder: Path) -> None:
    """Refuses a run that needs more bytes than the disk of ``folder`` has free.

    Args:
        needed: bytes that the run writes.
        what: description of the need, for the message.
        folder: folder of the run, which may not exist yet.

    Raises:
        UserError: the disk has too little space.
    """
    free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
    if needed > free:
        raise UserError(
            f"{what}, the disk of {folder} has {format_bytes(free)} free; free some space, set hydra.run.dir to "
            f"another disk, or keep fewer (callbacks.best=null)"
        )


def format_bytes(count: int) -> str:
    """Bytes as text in the largest fitting unit, in powers of 1024: 1536 -> 1.5 kB."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min((count.bit_length() - 1) // 10, len(units) - 1) if count else 0
    return f"{count / 1024**power:.{1 if power else 0}f} {units[power]}"
