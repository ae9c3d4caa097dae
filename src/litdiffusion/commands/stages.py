"""The first stage of latent diffusion: trains the autoencoder that a run's codec needs, once."""

from collections.abc import Callable
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf, open_dict

from litdiffusion.build import Run
from litdiffusion.config.composition import composed_again
from litdiffusion.runs.record import CHECKPOINTS

FOLDER = "autoencoder"
"""Folder of the first stage's run, inside that of the run itself."""
SHARED = ("seed", "threads", "data.root", "trainer.accelerator", "trainer.devices", "trainer.precision", "resume")
"""Settings that the first stage takes from the run."""


def with_autoencoder(cfg: DictConfig, run: Run, train: Callable[[DictConfig, Run], object]) -> DictConfig:
    """The config with the path of its autoencoder, which is trained first if only its experiment is named.

    ``codec.experiment`` is trained by ``train`` in the folder ``autoencoder`` of the run. It is a run like others: what
    is unfinished is resumed, and what is complete is used as it is. A config with ``codec.ckpt`` does not change.
    """
    experiment = OmegaConf.select(cfg, "codec.experiment")
    if experiment is None or cfg.codec.ckpt is not None:
        return cfg
    values = {key: OmegaConf.select(cfg, key) for key in SHARED}
    words = [f"++{key}={value}" for key, value in values.items() if value is not None]
    quiet = () if "progress_bar" in cfg.get("callbacks", {}) else ("~callbacks.progress_bar",)
    stage = replace(run, dir=run.dir / FOLDER, name=f"{run.name}/{FOLDER}", extra_callbacks=())
    print(f"first stage: experiment={experiment} in {stage.dir}", flush=True)
    train(composed_again([f"experiment={experiment}", *words, *quiet]), stage)
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.codec.ckpt = str(stage.dir / "checkpoints" / CHECKPOINTS[0])
    return cfg
