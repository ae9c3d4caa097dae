"""What each command does with its config. Torch and Lightning take seconds, so that functions import them late.

``--help`` and typing errors need neither.
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from litdiffusion import sweeps
from litdiffusion.commands import cli
from litdiffusion.config.composition import complete_config
from litdiffusion.config.paths import CONF
from litdiffusion.config.public import public_words
from litdiffusion.config.yamls import override_dirname, task_overrides


def train(cfg: DictConfig) -> float | None:
    """Trains one model; returns the final value of ``cfg.metric``."""
    hydra_cfg = HydraConfig.get()
    multirun = hydra_cfg.mode.name == "MULTIRUN"
    with cli.job(cfg, multirun):
        complete_config(cfg, CONF, "train")
        from litdiffusion.build import Run
        from litdiffusion.commands.training import train

        folder = Path(hydra_cfg.runtime.output_dir)
        overrides = tuple(public_words(task_overrides()))
        if cfg.sweep is not None:
            return sweeps.run_job(cfg, Run(folder, sweeps.job_name(overrides), str(cfg.sweep), overrides), train)
        name = cfg.name or override_dirname() or folder.name
        group = folder.parent.name if multirun else None
        return train(cfg, Run(folder, name, group, overrides))


def check(cfg: DictConfig) -> None:
    """Trains an experiment and compares its metric with the expected value; status 1: too bad."""
    hydra_cfg = HydraConfig.get()
    with cli.job(cfg, multirun=hydra_cfg.mode.name == "MULTIRUN"):
        complete_config(cfg, CONF, "train")
        from litdiffusion.build import Run
        from litdiffusion.commands.checking import check

        folder = Path(hydra_cfg.runtime.output_dir)
        print(check(cfg, Run(folder, f"check {override_dirname()}")))


def sample(cfg: DictConfig) -> None:
    """Draws samples from a checkpoint."""
    with cli.job(cfg):
        from litdiffusion.pretrained.sampling import sample_to_files

        sample_to_files(cfg)


def evaluate(cfg: DictConfig) -> None:
    """Measures samples of checkpoints."""
    with cli.job(cfg):
        from litdiffusion.reports.quality import evaluate_to_files

        evaluate_to_files(cfg, CONF / "sampler")


def inpaint(cfg: DictConfig) -> None:
    """Draws the hidden part of held-out data."""
    with cli.job(cfg):
        from litdiffusion.pretrained.inpainting import inpaint_to_files

        inpaint_to_files(cfg)


def interpolate(cfg: DictConfig) -> None:
    """Walks between samples."""
    with cli.job(cfg):
        from litdiffusion.pretrained.interpolating import interpolate_to_files

        interpolate_to_files(cfg)


def likelihood(cfg: DictConfig) -> None:
    """Measures the likelihood of held-out data."""
    with cli.job(cfg):
        from litdiffusion.reports.likelihood import likelihood_to_files

        likelihood_to_files(cfg)


def export(cfg: DictConfig) -> None:
    """Writes a model without its training state."""
    with cli.job(cfg):
        from litdiffusion.pretrained.sharing import export_to_files

        export_to_files(cfg)
