"""The first stage of latent diffusion: trains the autoencoder that a run's codec needs, once."""

from dataclasses import replace

from omegaconf import DictConfig, OmegaConf, open_dict

from litdiffusion.build import Run
from litdiffusion.config.composition import composed_again
from litdiffusion.runs.record import CHECKPOINTS

FOLDER = "autoencoder"
"""Folder of the first stage's run, inside that of the run itself."""
SHARED = ("seed", "threads", "data.root", "trainer.accelerator", "trainer.devices", "trainer.precision")
SHARED += ("resume", "dry_run", "trainer.fast_dev_run")
"""Settings that the first stage takes from the run."""


def first_stage(cfg: DictConfig, run: Run) -> tuple[DictConfig, Run] | None:
    """Config and run of the autoencoder that a run's codec needs; None if it needs none, or has its ``codec.ckpt``.

    ``codec.experiment`` is trained in the folder ``autoencoder`` of the run. It is a run like others: what is
    unfinished is resumed, and what is complete is used as it is.
    """
    experiment = OmegaConf.select(cfg, "codec.experiment")
    if experiment is None or cfg.codec.ckpt is not None:
        return None
    values = {key: OmegaConf.select(cfg, key) for key in SHARED}
    words = [f"++{key}={value}" for key, value in values.items() if value is not None]
    quiet = () if OmegaConf.select(cfg, "callbacks.progress_bar") else ("~callbacks.progress_bar",)
    stage = replace(run, dir=run.dir / FOLDER, name=f"{run.name}/{FOLDER}", extra_callbacks=())
    return composed_again([f"experiment={experiment}", *words, *quiet]), stage


def with_autoencoder(cfg: DictConfig, stage: Run) -> DictConfig:
    """The config of the second stage, with the checkpoint of the first one's run."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.codec.ckpt = str(stage.dir / "checkpoints" / CHECKPOINTS[0])
    return cfg
