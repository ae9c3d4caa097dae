"""Trains a diffusion model: ``python train.py model=unet data=mnist``; ``python train.py --help`` lists all options."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from litdiffusion import sweeps
from litdiffusion.commands import cli
from litdiffusion.config.composition import complete_config
from litdiffusion.config.public import public_words
from litdiffusion.config.yamls import override_dirname, task_overrides

CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    hydra_cfg = HydraConfig.get()
    multirun = hydra_cfg.mode.name == "MULTIRUN"
    with cli.job(cfg, multirun):
        complete_config(cfg, CONF, "train")
        # Imported late because torch and Lightning take seconds: --help and typing errors need neither.
        from litdiffusion.build import Run
        from litdiffusion.commands.training import train

        folder = Path(hydra_cfg.runtime.output_dir)
        overrides = tuple(public_words(task_overrides()))
        if cfg.sweep is not None:
            return sweeps.run_job(cfg, Run(folder, sweeps.job_name(overrides), str(cfg.sweep), overrides), train)
        name = cfg.name or override_dirname() or folder.name
        group = folder.parent.name if multirun else None
        return train(cfg, Run(folder, name, group, overrides))


if __name__ == "__main__":
    cli.run(main, CONF, "train")
