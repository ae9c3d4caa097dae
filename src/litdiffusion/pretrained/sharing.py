"""Exports a checkpoint, and pushes it to the hub: what ``litdiffusion export`` and the end of a run do."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from litdiffusion.errors import UserError
from litdiffusion.pretrained.exporting import CONFIG, WEIGHTS, export
from litdiffusion.pretrained.hub import check_token, push
from litdiffusion.pretrained.outputs import folder_for
from litdiffusion.runs.files import fresh
from litdiffusion.training.checkpoints import LAST


def export_to_files(cfg: DictConfig) -> None:
    """Exports ``cfg.ckpt`` into ``cfg.out``, and pushes it to the model ``cfg.push`` if there is one.

    Raises:
        UserError: see `export` and `push`.
    """
    if OmegaConf.is_missing(cfg, "ckpt") or (cfg.out is None and cfg.push is None):
        missing = "ckpt" if OmegaConf.is_missing(cfg, "ckpt") else "out"
        raise UserError(f"give {missing}: litdiffusion export ckpt=outputs/.../last.ckpt out=my_model")
    if cfg.push is not None:
        check_token(cfg.push)
    out = cfg.out if cfg.out is not None else folder_for(cfg, "export", CONFIG)
    folder = export(cfg.ckpt, out, cfg.weights, cfg.ema, cfg.push)
    width = "" if cfg.ema is None else f" of the width {cfg.ema:g}"
    print(f"exported the {cfg.weights} weights{width}: {folder / WEIGHTS}, {folder / CONFIG}")
    if cfg.push is not None:
        print(f"pushed to {push(folder, cfg.push)}")


def push_run(run_dir: Path, name: str) -> None:
    """Exports the last checkpoint of a run into its folder and pushes it; prints one line, also if that fails."""
    checkpoint = run_dir / "checkpoints" / LAST
    later = f"litdiffusion export ckpt={checkpoint} push={name}"
    if not checkpoint.is_file():
        print(f"warning: push={name}: the run kept no {LAST}, so nothing is pushed", file=sys.stderr)
        return
    try:
        print(f"pushed to {push(export(checkpoint, fresh(run_dir / 'export'), name=name), name)}", flush=True)
    except UserError as error:  # the run is complete whatever the hub says
        print(f"warning: {error}. The run is kept; push it later by {later}", file=sys.stderr)
