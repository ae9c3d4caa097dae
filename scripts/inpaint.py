"""Inpaints from a checkpoint: ``python scripts/inpaint.py ckpt=outputs/.../last.ckpt mask=left``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from litdiffusion.commands import cli

CONF = Path(__file__).parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="../conf", config_name="inpaint")
def main(cfg: DictConfig) -> None:
    with cli.job(cfg):
        from litdiffusion.pretrained.inpainting import inpaint_to_files

        inpaint_to_files(cfg)


if __name__ == "__main__":
    cli.run(main, CONF, "inpaint")
