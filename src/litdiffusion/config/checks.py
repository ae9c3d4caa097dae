"""Whether a run can begin: every refusal, in one order, before the device is touched.

0. keys that nothing reads, and typing errors: `origins.check_keys`, right after composition;
1. `check_config`, before anything is built: values of settings, targets of unknown packages, the run's folder;
2. the constructors of the parts, data first, then codec, schedule, metrics, net, objective, sampler; the module refuses
   a sampler or an objective that does not fit the process;
3. `check_parts`: the metric and the monitored numbers, shapes, optimizer and learning rate, processes;
4. `check_disk`: room for the checkpoints.
"""

import os
import shutil
from pathlib import Path

import lightning as L
from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.metrics import check_metric, check_monitors
from litdiffusion.config.optimizer import check_optimizer
from litdiffusion.config.settings import check_folder, check_settings
from litdiffusion.config.shapes import DummyOutput, check_shapes
from litdiffusion.config.trust import warn_of_untrusted_packages
from litdiffusion.data import Facts
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import Quality
from litdiffusion.training import DiffusionModule


def check_config(cfg: DictConfig, run_dir: Path) -> None:
    """Checks what can be known before any part is built, and makes the run's folder, unless for a dry run."""
    check_settings(cfg)
    warn_of_untrusted_packages(OmegaConf.to_container(cfg, resolve=False), cfg.trusted)
    if not cfg.dry_run:
        check_folder(run_dir)


def check_parts(
    cfg: DictConfig,
    module: DiffusionModule,
    data: Facts,
    quality: Quality | None,
    trainer: L.Trainer,
    steps: float,
    in_sweep: bool,
) -> DummyOutput:
    """Checks that the parts of a run fit each other; returns the net's answer to two dummy items.

    Args:
        cfg: with ``derived`` merged in.
        module: built.
        data: what is known of the data.
        quality: that samples are measured by.
        trainer: built, with nothing started.
        steps: of the whole run.
        in_sweep: whether this is a job of a multirun.

    Raises:
        UserError: the first thing that does not fit.
    """
    check_metric(cfg, quality)
    check_monitors(cfg, quality)
    dummy_output = check_shapes(module, data)
    check_optimizer(cfg, module.denoiser, steps)
    check_processes(trainer, in_sweep)
    return dummy_output


def check_processes(trainer: L.Trainer, in_sweep: bool) -> None:
    """Refuses more processes than cores on a CPU, and several processes for a job of a multirun."""
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        raise UserError(
            f"trainer.devices={trainer.num_devices} is more than the {cores} cores of this machine; lower it"
        )
    if in_sweep and trainer.world_size > 1:
        raise UserError("-m runs its jobs in one process each; for several devices start the jobs by a shell loop")


def check_disk(needed: int, what: str, folder: Path) -> None:
    """Refuses a run that writes more than the disk of ``folder`` has room for.

    Args:
        needed: bytes.
        what: needs them, for the message.
        folder: of the run, or where it will be.

    Raises:
        UserError: what is needed and what is free.
    """
    free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
    if needed > free:
        raise UserError(
            f"{what}, the disk of {folder} has {format_bytes(free)} free; make room, set hydra.run.dir to another disk, or "
            f"keep fewer (callbacks.best=null)"
        )


def format_bytes(count: int) -> str:
    """Bytes in the unit that a person would choose, of 1024 each: 1536 -> 1.5 kB."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min((count.bit_length() - 1) // 10, len(units) - 1) if count else 0
    return f"{count / 1024**power:.{1 if power else 0}f} {units[power]}"
