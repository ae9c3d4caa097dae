"""Trains an experiment and checks its metric: ``python scripts/check.py experiment=toy_spiral``; status 1: too bad."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from litdiffusion.commands import cli
from litdiffusion.config.composition import complete_config
from litdiffusion.config.yamls import override_dirname

CONF = Path(__file__).parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    hydra_cfg = HydraConfig.get()
    with cli.job(cfg, multirun=hydra_cfg.mode.name == "MULTIRUN"):
        complete_config(cfg, CONF, "train")
        from litdiffusion.build import Run
        from litdiffusion.commands.checking import check

        folder = Path(hydra_cfg.runtime.output_dir)
        print(check(cfg, Run(folder, f"check {override_dirname()}")))


if __name__ == "__main__":
    cli.run(main, CONF, "train")
