"""Draws samples from a checkpoint and writes them as a picture and an npz file."""

import time
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from litdiffusion.config.make import make
from litdiffusion.config.settings import require_int
from litdiffusion.data.conditions import CLASS
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.errors import UserError
from litdiffusion.plots import comparison_picture, image_grid
from litdiffusion.plots.images import MOST_NAMES
from litdiffusion.pretrained.model import Pretrained
from litdiffusion.pretrained.outputs import folder_for
from litdiffusion.pretrained.processes import Processes, processes
from litdiffusion.pretrained.progress import draw_samples
from litdiffusion.runs.files import write_arrays, write_picture
from litdiffusion.training.class_labels import grid_columns

MOST_PANELS = 8
"""Largest number of panels of vectors that were told different conditions; more are shown together."""


def sample_to_files(cfg: DictConfig) -> Path | None:
    """Draws ``cfg.n`` samples, writes ``samples.png`` and ``samples.npz`` and returns their folder.

    Of several processes the first one writes; the others return None.
    """
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: litdiffusion sample ckpt=outputs/.../checkpoints/last.ckpt")
    for name, least in {"n": 1, "batch_size": 1, "seed": 0, **({"steps": 1} if cfg.steps is not None else {})}.items():
        require_int(cfg, name, least)
    with processes(cfg.device, cfg.devices, cfg.num_nodes) as here:
        return _sample(cfg, here)


def _sample(cfg: DictConfig, here: Processes) -> Path | None:
    pretrained = Pretrained(cfg.ckpt, cfg.weights, cfg.trust, ema=cfg.ema)
    sampler = _sampler(cfg, pretrained)
    told = pretrained.told(cfg.n, cfg.class_label, cfg.condition)
    if left := [name for i, name in enumerate(pretrained.condition_names[::-1]) if told[:, -1 - i].isnan().all()]:
        print(f"not told: {', '.join(left[::-1])} (condition.{left[-1]}=...); the samples have any value of the data")
    with here.first_alone():  # a guide may need data or a classifier
        guide = pretrained.guide(cfg.get("guide"), cfg.data_root, cfg.data_path)
        draws = pretrained.draws(sampler, here.device, cfg.clip, cfg.guidance, guide, cfg.precision)
    folder = folder_for(cfg, "samples", "samples.npz") if here.is_first else None
    begin = time.perf_counter()
    samples = draw_samples(draws, cfg.n, cfg.seed, cfg.batch_size, told, here)
    if samples is None:
        return None
    seconds = time.perf_counter() - begin
    _write(folder, samples, told, cfg, pretrained)
    print(f"{len(samples)} samples in {seconds:.1f} s, {len(samples) / seconds:.1f} samples/s: {folder}")
    return folder


def _sampler(cfg: DictConfig, pretrained: Pretrained) -> Sampler:
    sampler = pretrained.sampler if cfg.get("sampler") is None else make(cfg.sampler, "sampler")
    sampler = sampler if cfg.steps is None else sampler.respaced(cfg.steps)
    sampler.check(pretrained.denoiser.schedule, pretrained.denoiser.learned_variance)
    return sampler


def _write(folder: Path, samples: Tensor, told: Tensor | None, cfg: DictConfig, pretrained: Pretrained) -> None:
    beside = pretrained.told_arrays(told)
    captions = pretrained.captions(told, named=samples.ndim != 4)
    write_arrays(folder / "samples.npz", samples=samples.numpy(), seeds=np.arange(cfg.n) + cfg.seed, **beside)
    if samples.ndim == 4:
        shown = samples[:400]
        side = grid_columns(len(shown), len(set(captions)))
        over, title = ([], _title(pretrained, captions)) if pretrained.conditions else (captions[: len(shown)], "")
        picture = image_grid(shown, side, pretrained.value_range or BYTES, over, title)
    else:
        picture = comparison_picture(_by_caption(samples, captions if pretrained.conditions else []))
    write_picture(folder / "samples.png", picture)


def _by_caption(samples: Tensor, captions: list[str]) -> dict[str, Tensor]:
    """Vectors (n, d) in one set for each caption; all in one set if there are many captions."""
    sets = list(dict.fromkeys(captions))
    if not 1 < len(sets) <= MOST_PANELS:
        return {f"samples: {sets[0]}" if len(sets) == 1 and sets[0] else "samples": samples}
    return {name: samples[[i for i, caption in enumerate(captions) if caption == name]] for name in sets}


def _title(pretrained: Pretrained, captions: list[str]) -> str:
    """What images were told, too long to stand over their columns: ``class, grey in turn: 3, 0.2 | 8, 0.2``."""
    names = ", ".join([*([CLASS] if pretrained.num_classes else []), *pretrained.condition_names])
    sets = list(dict.fromkeys(captions))
    return f"{names} in turn: {' | '.join(sets)}" if len(sets) <= MOST_NAMES else names
