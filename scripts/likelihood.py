"""Measures the likelihood of held-out data: ``python scripts/likelihood.py ckpt=outputs/.../last.ckpt method=flow``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from litdiffusion.commands import cli

CONF = Path(__file__).parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="../conf", config_name="likelihood")
def main(cfg: DictConfig) -> None:
    with cli.job(cfg):
        from litdiffusion.reports.likelihood import likelihood_to_files

        likelihood_to_files(cfg)


if __name__ == "__main__":
    cli.run(main, CONF, "likelihood")
