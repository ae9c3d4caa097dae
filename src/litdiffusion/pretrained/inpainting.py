"""Inpaints held-out images with a hidden part, or points with one known coordinate, by a checkpoint."""

import time
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from PIL.Image import Image
from torch import Tensor

from litdiffusion.config.make import make_a
from litdiffusion.config.settings import is_conditional, require_int
from litdiffusion.data import Facts
from litdiffusion.diffusion.levels import Noise
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.diffusion.seeding import fold_seed, item_seed
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import wasserstein_1d
from litdiffusion.plots import trajectory_sheet
from litdiffusion.plots.conditionals import Conditional, conditional_picture
from litdiffusion.plots.images import in_rows
from litdiffusion.plots.palette import DENSITY
from litdiffusion.pretrained.model import Pretrained
from litdiffusion.pretrained.outputs import device_for, folder_for
from litdiffusion.pretrained.problems import Problem, check_values, fixed_points, hidden_images
from litdiffusion.pretrained.progress import progress_bar
from litdiffusion.runs.files import write_arrays, write_picture

STEPS = 50
"""Default number of transitions; a shorter chain has fewer."""
MOST = 6
"""Largest number of fixed points, or of inpaintings of an image, in the picture."""
POOL = 200_000
"""Fresh points of the data; the nearest 1 % of them approximate the conditional distribution at a fixed x."""


def inpaint_to_files(cfg: DictConfig) -> Path:
    """Inpaints by the settings of ``cfg``, writes ``inpainting.png`` and ``inpainting.npz``; returns their folder."""
    _check(cfg)
    pretrained = Pretrained(cfg.ckpt, cfg.weights, cfg.trust, ema=cfg.ema)
    pretrained.class_labels(1, cfg.class_label)  # refuses an unknown class before the data are read
    data = pretrained.data(cfg.data_root, cfg.data_path)
    images = _are_images(cfg, pretrained, data)
    cfg = _with_defaults(cfg, pretrained, images)
    problem = (hidden_images if images else fixed_points)(cfg, data)
    encoded, denoiser = problem.encoded(pretrained.codec), pretrained.denoiser
    sampler_for(cfg, encoded.items, encoded.mask).check(denoiser.schedule, denoiser.learned_variance)
    told = pretrained.class_labels_of(data, len(problem.items), cfg.class_label, cfg.condition) if images else None
    folder = folder_for(cfg, "inpainting", "inpainting.npz")
    if not pretrained.codec.in_data_space:
        print(f"known: {_share(problem.mask)} of the pixels, {_share(encoded.mask)} of the latents, in whole patches")
    begin = time.perf_counter()
    samples = inpaintings(cfg, pretrained, encoded, told)
    samples = torch.where(problem.mask[:, None], problem.items[:, None], samples)  # because decoding rounds
    seconds = time.perf_counter() - begin
    arrays = {"items": problem.items, "mask": problem.mask, "samples": samples}
    write_arrays(folder / "inpainting.npz", **arrays, **pretrained.told_arrays(told))
    times = "once" if cfg.resample == 1 else f"{cfg.resample} times"
    title = f"{problem.title}: {cfg.steps} transitions, each taken {times}"
    if captions := pretrained.captions(told):
        title += f"; {'told' if pretrained.conditions else 'classes'} {in_rows(captions)}"
    picture = (image_picture if images else point_picture)(problem, samples, data, title)
    write_picture(folder / "inpainting.png", picture)
    print(f"{samples.shape[0]} x {samples.shape[1]} inpaintings in {seconds:.1f} s: {folder}")
    return folder


def inpaintings(cfg: DictConfig, pretrained: Pretrained, encoded: Problem, told: Tensor | None) -> Tensor:
    """(n, samples, *shape) on the CPU; those of item i depend on ``cfg.seed + i`` and ``cfg.samples`` alone.

    ``encoded`` is the problem in model space, ``told`` what a conditional model is told of its n items.
    """
    together, count = max(1, cfg.batch_size // cfg.samples), len(encoded.items)
    sampler, device = sampler_for(cfg, encoded.items, encoded.mask), device_for(cfg.device)
    repeated = None if told is None else told.repeat_interleave(cfg.samples, 0)
    parts = []
    with progress_bar(pretrained.draws(sampler, device, cfg.clip, guidance=1.0), count * cfg.samples) as draws:
        for start in range(0, count, together):
            items = range(start, min(start + together, count))
            indices = range(items.start * cfg.samples, items.stop * cfg.samples)
            noise = _noise_per_item([item_seed("inpainting", cfg.seed + i) for i in items])
            part = replace(draws, sampler=sampler_for(cfg, *encoded.repeated(items, cfg.samples)))
            parts.append(part.batch(indices, noise, repeated).x.cpu())
    return torch.cat(parts).unflatten(0, (-1, cfg.samples))


def sampler_for(cfg: DictConfig, known: Tensor, mask: Tensor) -> Sampler:
    """The sampler of the group ``inpainting``, which is given the known part of each sample."""
    return make_a(Sampler, cfg.inpainting, "inpainting", known=known, mask=mask)


def image_picture(problem: Problem, samples: Tensor, data: Facts, title: str) -> Image:
    """One row per image: the image, its known part, and its inpaintings; ``samples`` is (n, samples, C, H, W)."""
    low, high = data.value_range or BYTES
    veil = low + (high - low) * torch.tensor(DENSITY[2]).view(3, 1, 1) / 255
    if problem.items.shape[1] == 4:  # an opaque veil
        veil = torch.cat((veil, torch.full((1, 1, 1), high)))
    shown = samples[:, :MOST].unbind(1)
    states = [problem.items, torch.where(problem.mask, problem.items, veil), *shown]
    titles = ["held out", "given", *(f"drawn {k + 1}" for k in range(len(shown)))]
    return trajectory_sheet(states, titles, title, (low, high))


def point_picture(problem: Problem, samples: Tensor, data: Facts, title: str) -> Image:
    """The data's density with the fixed x, and the distribution of y at each; ``samples`` is (n, samples, d)."""
    slices, pool = [], data.draw(POOL, 0) if hasattr(data, "draw") else data.reference(len(data.val.data))
    for x, ys in zip(problem.items[:, 0].tolist(), samples[..., 1], strict=True):
        slices.append(Conditional(x, ys, conditional_truth(data, pool, x)))
        distance = wasserstein_1d(ys, slices[-1].truth)
        print(f"x = {x:.3f}: W1 between {len(ys)} values of y and the data's {distance:.4f}")
    return conditional_picture(pool, slices[:MOST], title)


def conditional_truth(data: Facts, pool: Tensor, x: float) -> Tensor:
    """Second coordinates (m,) of data with first coordinate ``x``: exact draws, or those of the nearest in ``pool``."""
    mixture = data.mixture
    if mixture is None:
        return pool[(pool[:, 0] - x).abs().topk(max(1, len(pool) // 100), largest=False).indices, 1]
    weights = (mixture.weights.log() - 0.5 * ((x - mixture.means[:, 0]) / mixture.std[0]) ** 2).softmax(0)
    given = mixture._replace(weights=weights, means=mixture.means[:, 1:2], std=mixture.std[1:2])
    return given.sample(POOL // 10, torch.Generator().manual_seed(fold_seed(0, "conditional")))[:, 0]


def _share(mask: Tensor) -> str:
    return f"{100 * mask.float().mean():.0f} %"


def _noise_per_item(seeds: list[int]) -> Noise:
    """Noise with one generator per item, so that an item does not depend on the batch; all items have equal shares."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(x: Tensor) -> Tensor:
        shape = (len(x) // len(generators), *x.shape[1:])
        return torch.cat([torch.randn(shape, generator=generator) for generator in generators]).to(x)

    return draw


def _check(cfg: DictConfig) -> None:
    """Refuses invalid settings before the checkpoint is read."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: litdiffusion inpaint ckpt=outputs/.../checkpoints/last.ckpt")
    optional = {name: 1 for name in ("n", "samples", "steps") if cfg[name] is not None}
    for name, least in {"resample": 1, "batch_size": 1, "seed": 0, **optional}.items():
        require_int(cfg, name, least)
    check_values(cfg.x)


def _with_defaults(cfg: DictConfig, pretrained: Pretrained, images: bool) -> DictConfig:
    """Replaces every null in the config by a default that depends on the checkpoint."""
    denoiser = pretrained.denoiser
    values = {
        "n": 8 if images else 4,
        "samples": 4 if images else 2000,
        "steps": min(STEPS, denoiser.schedule.steps or STEPS),
        "variance": "learned" if denoiser.learned_variance else "posterior" if images else "forward",
    }
    return OmegaConf.merge(cfg, {key: value for key, value in values.items() if cfg[key] is None})


def _are_images(cfg: DictConfig, pretrained: Pretrained, data: Facts) -> bool:
    """Whether the data are images; refuses data and settings that inpainting cannot use."""
    shape = tuple(data.shape)
    if shape == (1,):
        raise UserError("inpainting needs images or points of at least 2 coordinates; this checkpoint's data have 1")
    images = len(shape) == 3
    for name in ("class_label", "condition"):
        if not images and cfg[name] is not None:
            raise UserError(f"{name} does not apply to inpainting of points; leave it out")
    if not images and is_conditional(pretrained.config) and pretrained.config.class_dropout == 0:
        raise UserError(
            "inpainting of points tells the net no class or condition, and this one never did without "
            "(class_dropout=0); train with class_dropout=0.1"
        )
    key = "x" if images else "mask"
    if cfg.get(key) is not None:
        raise UserError(f"{key} does not apply to data of shape {shape}; leave it out")
    return images
