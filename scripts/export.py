"""Exports a model: ``python scripts/export.py ckpt=outputs/.../last.ckpt out=my_model``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from litdiffusion.commands import cli
from litdiffusion.errors import UserError

CONF = Path(__file__).parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="../conf", config_name="export")
def main(cfg: DictConfig) -> None:
    with cli.job(cfg):
        for key in ("ckpt", "out"):
            if OmegaConf.is_missing(cfg, key):
                raise UserError(f"give {key}: python scripts/export.py ckpt=outputs/.../last.ckpt out=my_model")
        from litdiffusion.pretrained.exporting import CONFIG, WEIGHTS, export

        folder = export(cfg.ckpt, cfg.out, cfg.weights, cfg.ema)
        width = "" if cfg.ema is None else f" of the width {cfg.ema:g}"
        print(f"exported the {cfg.weights} weights{width}: {folder / WEIGHTS}, {folder / CONFIG}")


if __name__ == "__main__":
    cli.run(main, CONF, "export")
