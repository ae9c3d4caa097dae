"""Draws samples from a checkpoint: ``python scripts/sample.py ckpt=outputs/.../last.ckpt sampler=ddim steps=50``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from litdiffusion.commands import cli

CONF = Path(__file__).parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="../conf", config_name="sample")
def main(cfg: DictConfig) -> None:
    with cli.job(cfg):
        from litdiffusion.pretrained.sampling import sample_to_files

        sample_to_files(cfg)


if __name__ == "__main__":
    cli.run(main, CONF, "sample")
