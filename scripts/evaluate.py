"""Measures samples of checkpoints: ``python scripts/evaluate.py ckpt=outputs/.../last.ckpt steps=[10,50]``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from litdiffusion.commands import cli

CONF = Path(__file__).parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    with cli.job(cfg):
        from litdiffusion.reports.quality import evaluate_to_files

        evaluate_to_files(cfg, CONF / "sampler")


if __name__ == "__main__":
    cli.run(main, CONF, "evaluate")
