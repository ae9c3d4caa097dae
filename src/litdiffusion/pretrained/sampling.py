"""Draws samples from a checkpoint and writes them as a picture and an npz file."""

import time
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from litdiffusion.config.make import make
from litdiffusion.config.settings import require_int
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.errors import UserError
from litdiffusion.plots import comparison_picture, image_grid
from litdiffusion.pretrained.model import Pretrained
from litdiffusion.pretrained.outputs import device_for, folder_for
from litdiffusion.pretrained.progress import draw_samples
from litdiffusion.runs.files import write_arrays, write_picture
from litdiffusion.training.class_labels import class_captions, grid_columns


def sample_to_files(cfg: DictConfig) -> Path:
    """Draws ``cfg.n`` samples, writes ``samples.png`` and ``samples.npz`` and returns their folder."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: python scripts/sample.py ckpt=outputs/.../checkpoints/last.ckpt")
    for name, least in {"n": 1, "batch_size": 1, "seed": 0, **({"steps": 1} if cfg.steps is not None else {})}.items():
        require_int(cfg, name, least)
    pretrained = Pretrained(cfg.ckpt, cfg.weights, cfg.trust)
    sampler = _sampler(cfg, pretrained)
    class_labels = pretrained.class_labels(cfg.n, cfg.class_label)
    guide = pretrained.guide(cfg.get("guide"), cfg.data_root, cfg.data_path)
    draws = pretrained.draws(sampler, device_for(cfg.device), cfg.clip, cfg.guidance, guide)
    folder = folder_for(cfg, "samples", "samples.npz")
    begin = time.perf_counter()
    samples = draw_samples(draws, cfg.n, cfg.seed, cfg.batch_size, class_labels)
    seconds = time.perf_counter() - begin
    _write(folder, samples, class_labels, cfg, pretrained)
    print(f"{len(samples)} samples in {seconds:.1f} s, {len(samples) / seconds:.1f} samples/s: {folder}")
    return folder


def _sampler(cfg: DictConfig, pretrained: Pretrained) -> Sampler:
    sampler = pretrained.sampler if cfg.get("sampler") is None else make(cfg.sampler, "sampler")
    sampler = sampler if cfg.steps is None else sampler.respaced(cfg.steps)
    sampler.check(pretrained.denoiser.schedule, pretrained.denoiser.learned_variance)
    return sampler


def _write(folder: Path, samples: Tensor, class_labels: Tensor | None, cfg: DictConfig, pretrained: Pretrained) -> None:
    beside = {} if class_labels is None else {"class_labels": class_labels.numpy()}
    if class_labels is not None and pretrained.class_names:
        beside["class_names"] = np.array(pretrained.class_names)
    write_arrays(folder / "samples.npz", samples=samples.numpy(), seeds=np.arange(cfg.n) + cfg.seed, **beside)
    if samples.ndim == 4:
        shown = samples[:400]
        side = grid_columns(len(shown), 0 if class_labels is None else len(class_labels.unique()))
        captions = class_captions(class_labels, pretrained.class_names)[: len(shown)]
        picture = image_grid(shown, side, pretrained.value_range or BYTES, captions)
    else:
        picture = comparison_picture({"samples": samples})
    write_picture(folder / "samples.png", picture)
