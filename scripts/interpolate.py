"""Walks between samples: ``python scripts/interpolate.py ckpt=outputs/.../last.ckpt class_label=[3,8]``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from litdiffusion.commands import cli

CONF = Path(__file__).parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="../conf", config_name="interpolate")
def main(cfg: DictConfig) -> None:
    with cli.job(cfg):
        from litdiffusion.pretrained.interpolating import interpolate_to_files

        interpolate_to_files(cfg)


if __name__ == "__main__":
    cli.run(main, CONF, "interpolate")
