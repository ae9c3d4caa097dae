"""Samples from a checkpoint alone: no data set, no training config folder."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from litdiffusion.build import build_denoiser
from litdiffusion.checks import check_folder, whole
from litdiffusion.denoisers import ClippedDenoiser
from litdiffusion.errors import UserError
from litdiffusion.instantiate import make
from litdiffusion.modules.checkpoints import read_checkpoint
from litdiffusion.plots import comparison_picture, image_grid
from litdiffusion.samplers import Sampler
from litdiffusion.types import Noise, per_sample_noise

PREFIXES = {"ema": "ema.model.", "raw": "denoiser."}


class Pretrained:
    """What a checkpoint holds for sampling: the denoiser with the chosen weights, its sampler and its codec."""

    def __init__(self, path: str | Path, weights: str = "ema"):
        if weights not in PREFIXES:
            raise UserError(f"weights must be one of {', '.join(PREFIXES)}, got {weights!r}")
        content = read_checkpoint(path)
        record = content["litdiffusion"]
        self.config: DictConfig = OmegaConf.create(record["config"])
        self.config.compile = False
        self.value_range: tuple[float, float] | None = record["value_range"]
        self.shape = tuple(self.config.derived.shape)
        self.codec: nn.Module = make(self.config.codec, "codec")
        self.sampler: Sampler = make(self.config.sampler, "sampler")
        self.denoiser = build_denoiser(self.config).eval()
        self.denoiser.load_state_dict(_part(content["state_dict"], PREFIXES[weights]))

    def on(self, device: torch.device, clip: bool) -> nn.Module:
        """The denoiser on a device, with ``clip`` kept in the data's range where they have one."""
        denoiser = self.denoiser.to(device)
        return ClippedDenoiser(denoiser, *self.value_range) if clip and self.value_range is not None else denoiser


def sample_to_files(cfg: DictConfig) -> Path:
    """Draws ``cfg.n`` samples, writes ``samples.png`` and ``samples.npz`` and returns their folder."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: python scripts/sample.py ckpt=outputs/.../checkpoints/last.ckpt")
    for name, least in {"n": 1, "batch_size": 1, "seed": 0, **({"steps": 1} if cfg.steps is not None else {})}.items():
        whole(cfg, name, least)
    pretrained = Pretrained(cfg.ckpt, cfg.weights)
    sampler = _sampler(cfg, pretrained)
    folder = folder_for(cfg, "samples", "samples.npz")
    begin = time.perf_counter()
    samples = torch.cat(list(batches(cfg, pretrained, sampler)))
    seconds = time.perf_counter() - begin
    _write(folder, samples, cfg, pretrained)
    print(f"{len(samples)} samples in {seconds:.1f} s, {len(samples) / seconds:.1f} samples/s: {folder}")
    return folder


def batches(cfg: DictConfig, pretrained: Pretrained, sampler: Sampler) -> Iterator[Tensor]:
    """Batches of samples in data space on the CPU; sample i depends on ``cfg.seed + i`` alone."""
    device = device_for(cfg.device)
    denoiser = pretrained.on(device, cfg.clip)
    with progress(cfg.n * (len(sampler.levels(denoiser.schedule)) - 1)) as bar:
        for start in range(0, cfg.n, cfg.batch_size):
            seeds = [cfg.seed + i for i in range(start, min(start + cfg.batch_size, cfg.n))]
            like = torch.empty(len(seeds), *pretrained.shape, device=device)
            yield pretrained.codec.decode(drawn(sampler, denoiser, like, per_sample_noise(seeds), bar)).float().cpu()


def drawn(sampler: Sampler, denoiser: nn.Module, like: Tensor, noise: Noise, bar: tqdm) -> Tensor:
    """One batch of samples shaped like ``like`` (B, ...), in model space, while ``bar`` counts their steps."""
    x = sampler.prior(denoiser.schedule, like, noise)
    for state in sampler.trajectory(denoiser, x, noise=noise):
        x = state.x
        bar.update(len(x) if state.step > 0 else 0)
    return x


def progress(steps: int) -> tqdm:
    """A bar over the steps of all samples."""
    return tqdm(total=steps, unit="step", unit_scale=True, desc="sampling", mininterval=0.5)


def _sampler(cfg: DictConfig, pretrained: Pretrained) -> Sampler:
    sampler = pretrained.sampler if cfg.get("sampler") is None else make(cfg.sampler, "sampler")
    sampler = sampler if cfg.steps is None else sampler.respaced(cfg.steps)
    sampler.check(pretrained.denoiser.schedule, pretrained.denoiser.learned_variance)
    return sampler


def _write(folder: Path, samples: Tensor, cfg: DictConfig, pretrained: Pretrained) -> None:
    np.savez_compressed(folder / "samples.npz", samples=samples.numpy(), seeds=np.arange(cfg.n) + cfg.seed)
    if samples.ndim == 4:
        shown = samples[:400]
        picture = image_grid(shown, max(1, round(len(shown) ** 0.5)), pretrained.value_range or (-1.0, 1.0))
    else:
        picture = comparison_picture({"samples": samples})
    picture.save(folder / "samples.png")


def folder_for(cfg: DictConfig, name: str, file: str) -> Path:
    """Makes the folder ``cfg.out``, or the first unused ``name_000`` ... beside the checkpoint, before the work starts.

    Raises:
        UserError: a folder that cannot be made, or that holds ``file``.
    """
    beside = Path(cfg.ckpt).parent
    unused = (path for k in count() if not (path := beside / f"{name}_{k:03d}").exists())
    path = Path(cfg.out) if cfg.out is not None else next(unused)
    check_folder(path)
    if (path / file).exists():
        raise UserError(f"{path} already holds {name}, which would be overwritten; name another folder by out=FOLDER")
    return path


def device_for(setting: str) -> torch.device:
    """The device of this name; auto: the accelerator of this machine, if there is one."""
    if setting == "auto":
        here = torch.accelerator.is_available()
        return torch.accelerator.current_accelerator() if here else torch.device("cpu")
    try:
        return torch.empty(0, device=setting).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device={setting} is not to be had here ({reason}); take device=auto or cpu") from error


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
