"""Inpainting from a checkpoint: held-out images with a part hidden, points of which only one coordinate is known."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from PIL.Image import Image
from torch import Tensor

from litdiffusion.config.settings import require_int
from litdiffusion.data import Facts
from litdiffusion.diffusion.levels import Noise
from litdiffusion.diffusion.samplers import Draws, RePaint
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError, nearest
from litdiffusion.measure.distances import wasserstein_1d
from litdiffusion.plots import trajectory_sheet
from litdiffusion.plots.conditionals import Conditional, conditional_picture
from litdiffusion.plots.palette import DENSITY
from litdiffusion.pretrained.sampling import Pretrained, counted, device_for, folder_for

HIDDEN: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "left": lambda row, column, chance: column < 0.5,
    "right": lambda row, column, chance: column > 0.5,
    "top": lambda row, column, chance: row < 0.5,
    "bottom": lambda row, column, chance: row > 0.5,
    "center": lambda row, column, chance: torch.maximum((row - 0.5).abs(), (column - 0.5).abs()) < 0.25,
    "random": lambda row, column, chance: chance < 0.75,
}
"""Which pixels are hidden: by the places of their middles in the image, from 0 to 1, or by a uniform draw."""

USUAL, STEPS = "bottom", 50
MOST = 6
"""Fixed points, or inpaintings of an image, that are shown."""
POOL = 200_000
"""Fresh points among which the nearest hundredth stands for the truth at a fixed first coordinate."""


class Problem(NamedTuple):
    """Items (n, *shape) in model space, and where they are known (n, *shape), true or false."""

    items: Tensor
    mask: Tensor


def inpaint_to_files(cfg: DictConfig) -> Path:
    """Inpaints what ``cfg`` asks for, writes ``inpainting.png`` and ``inpainting.npz`` and returns their folder."""
    _check(cfg)
    pretrained = Pretrained(cfg.ckpt, cfg.weights, cfg.trust)
    images = _has_images(cfg, pretrained)
    for key, default in {"n": 8 if images else 4, "samples": 4 if images else 2000}.items():
        cfg[key] = default if cfg[key] is None else cfg[key]
    data = pretrained.data()
    problem = (hidden_images if images else fixed_points)(cfg, data)
    repaint(cfg, pretrained, problem).check(pretrained.denoiser.schedule, pretrained.denoiser.learned_variance)
    folder = folder_for(cfg, "inpainting", "inpainting.npz")
    begin = time.perf_counter()
    class_labels = pretrained.class_labels_of(data, len(problem.items)) if images else None
    samples = inpaintings(cfg, pretrained, problem, class_labels)
    seconds = time.perf_counter() - begin
    np.savez_compressed(folder / "inpainting.npz", items=problem.items, mask=problem.mask, samples=samples)
    draw = image_picture if images else point_picture
    draw(problem, samples, data, _title(cfg, pretrained, images)).save(folder / "inpainting.png")
    print(f"{samples.shape[0]} x {samples.shape[1]} inpaintings in {seconds:.1f} s: {folder}")
    return folder


def hidden_images(cfg: DictConfig, data: Facts) -> Problem:
    """The first ``cfg.n`` held-out images (n, C, H, W) with the part that ``cfg.mask`` names hidden in each."""
    items = data.reference(cfg.n)
    height, width = items.shape[2:]
    row, column = ((torch.arange(size) + 0.5) / size for size in (height, width))
    chances = [
        torch.rand(1, height, width, generator=torch.Generator().manual_seed(fold_seed(cfg.seed, i)))
        for i in range(len(items))
    ]
    hidden = HIDDEN[cfg.mask or USUAL](row[:, None].expand(height, width), column, torch.stack(chances))
    return Problem(items, ~hidden.expand_as(items))


def fixed_points(cfg: DictConfig, data: Facts) -> Problem:
    """Points (n, d) of which only the first coordinate is known: ``cfg.x``, or ``cfg.n`` quantiles of held-out ones."""
    if cfg.x is None:
        first = data.reference(len(data.val.data))[:, 0].double()
        values = first.quantile((torch.arange(cfg.n, dtype=torch.float64) + 0.5) / cfg.n).tolist()
    else:
        values = list(cfg.x)
    items = torch.zeros(len(values), *data.shape)
    items[:, 0] = torch.tensor(values)
    return Problem(items, (torch.arange(*data.shape) == 0).expand_as(items))


def inpaintings(cfg: DictConfig, pretrained: Pretrained, problem: Problem, class_labels: Tensor | None) -> Tensor:
    """(n, samples, *shape) on the CPU; those of item i depend on ``cfg.seed + i`` and ``cfg.samples`` alone.

    A conditional model is told the items' ``class_labels`` (n,), where they have any.
    """
    known = Draws(repaint(cfg, pretrained, problem), pretrained.on(device_for(cfg.device), cfg.clip), pretrained.shape)
    together, count = max(1, cfg.batch_size // cfg.samples), len(problem.items)
    chosen = None if class_labels is None else class_labels.repeat_interleave(cfg.samples)
    parts = []
    with counted(replace(known, device=device_for(cfg.device)), count * cfg.samples) as draws:
        for start in range(0, count, together):
            items = range(start, min(start + together, count))
            part = Problem(*(x[items.start : items.stop].repeat_interleave(cfg.samples, 0) for x in problem))
            places = range(items.start * cfg.samples, items.stop * cfg.samples)
            noise = _noise_per_item([cfg.seed + i for i in items])
            parts.append(replace(draws, sampler=repaint(cfg, pretrained, part)).batch(places, noise, chosen).x.cpu())
    return torch.cat(parts).unflatten(0, (-1, cfg.samples))


def repaint(cfg: DictConfig, pretrained: Pretrained, problem: Problem) -> RePaint:
    """The sampler that knows ``problem``, with the settings of ``cfg`` and what they leave to the checkpoint."""
    denoiser = pretrained.denoiser
    usual = "posterior" if problem.items.ndim == 4 else "forward"
    variance = cfg.variance or ("learned" if denoiser.learned_variance else usual)
    return RePaint(*problem, _steps(cfg, pretrained), cfg.resample, variance, cfg.grid)


def image_picture(problem: Problem, samples: Tensor, data: Facts, title: str) -> Image:
    """A row per image: as it is, what is given of it, and the inpaintings (n, samples, C, H, W)."""
    low, high = data.value_range or (-1.0, 1.0)
    veil = low + (high - low) * torch.tensor(DENSITY[2]).view(3, 1, 1) / 255
    shown = samples[:, :MOST].unbind(1)
    states = [problem.items, torch.where(problem.mask, problem.items, veil), *shown]
    titles = ["held out", "given", *(f"drawn {k + 1}" for k in range(len(shown)))]
    return trajectory_sheet(states, titles, title, (low, high))


def point_picture(problem: Problem, samples: Tensor, data: Facts, title: str) -> Image:
    """The density of the data with the fixed first coordinates, and the second one drawn at each (n, samples, d)."""
    slices, pool = [], data.draw(POOL, 0) if hasattr(data, "draw") else data.reference(len(data.val.data))
    for x, ys in zip(problem.items[:, 0].tolist(), samples[..., 1], strict=True):
        slices.append(Conditional(x, ys, conditional_truth(data, pool, x)))
        distance = wasserstein_1d(ys, slices[-1].truth)
        print(f"x = {x:.3f}: W1 between {len(ys)} values of y and the data's {distance:.4f}")
    return conditional_picture(pool, slices[:MOST], title)


def conditional_truth(data: Facts, pool: Tensor, x: float) -> Tensor:
    """Second coordinates (m,) of data whose first is ``x``: by the law in closed form, or the nearest in ``pool``."""
    law = data.mixture
    if law is None:
        return pool[(pool[:, 0] - x).abs().topk(max(1, len(pool) // 100), largest=False).indices, 1]
    weights = (law.weights.log() - 0.5 * ((x - law.means[:, 0]) / law.std[0]) ** 2).softmax(0)
    given = law._replace(weights=weights, means=law.means[:, 1:2], std=law.std[1:2])
    return given.sample(POOL // 10, torch.Generator().manual_seed(0))[:, 0]


def _steps(cfg: DictConfig, pretrained: Pretrained) -> int:
    chain = pretrained.denoiser.schedule.steps or STEPS
    return min(STEPS, chain) if cfg.steps is None else cfg.steps


def _title(cfg: DictConfig, pretrained: Pretrained, images: bool) -> str:
    what = f"{(cfg.mask or USUAL).capitalize()} hidden" if images else "y at a known x"
    times = "once" if cfg.resample == 1 else f"{cfg.resample} times"
    return f"{what}: {_steps(cfg, pretrained)} transitions, each taken {times}"


def _noise_per_item(seeds: list[int]) -> Noise:
    """One stream for each item, which its samples share: their batch holds them side by side, alike for every item."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(x: Tensor) -> Tensor:
        shape = (len(x) // len(generators), *x.shape[1:])
        return torch.cat([torch.randn(shape, generator=generator) for generator in generators]).to(x)

    return draw


def _check(cfg: DictConfig) -> None:
    """Refuses what is wrong before the checkpoint is read."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: python scripts/inpaint.py ckpt=outputs/.../checkpoints/last.ckpt")
    if cfg.mask is not None and cfg.mask not in HIDDEN:
        raise UserError(f"mask must be one of {', '.join(HIDDEN)}, got {cfg.mask!r}{nearest(str(cfg.mask), [*HIDDEN])}")
    optional = {name: 1 for name in ("n", "samples", "steps") if cfg[name] is not None}
    for name, least in {"resample": 1, "batch_size": 1, "seed": 0, **optional}.items():
        require_int(cfg, name, least)
    numbers = isinstance(cfg.x, ListConfig) and all(isinstance(v, (int, float)) and isfinite(v) for v in cfg.x)
    if cfg.x is not None and not (numbers and len(cfg.x)):
        raise UserError(f"x must be a list of numbers, as in x=[-1,0,1], got {cfg.x!r}")


def _has_images(cfg: DictConfig, pretrained: Pretrained) -> bool:
    """Whether the checkpoint's data are images; refuses data without parts, and settings for the other kind."""
    if not pretrained.codec.in_data_space:
        raise UserError(
            "inpainting hides pixels, this checkpoint works on a codec's latents; train with codec=identity"
        )
    if pretrained.shape == (1,):
        raise UserError("inpainting needs images or points of 2 coordinates and more; this checkpoint's data have 1")
    images = len(pretrained.shape) == 3
    key = "x" if images else "mask"
    if cfg[key] is not None:
        raise UserError(f"{key} does not apply to data of shape {pretrained.shape}; leave it out")
    return images
