"""Walks between samples and between classes: noise on the great circle, classes by mixed predictions."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from litdiffusion.config.make import make
from litdiffusion.config.settings import require_int
from litdiffusion.diffusion.denoisers import MixedClasses
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.samplers import DDIM, Draws, Sampler, blank
from litdiffusion.errors import UserError
from litdiffusion.plots import cloud_picture, trajectory_sheet, walk_gif
from litdiffusion.pretrained.model import Pretrained
from litdiffusion.pretrained.outputs import device_for, folder_for
from litdiffusion.pretrained.progress import noise_of_samples, progress_bar
from litdiffusion.runs.files import write_arrays, write_atomically, write_picture

IMAGES, POINTS, STEPS = 10, 500, 50
"""Defaults: walks of images, points of a cloud, and steps of the sampler."""
COLUMNS, PANELS = 11, 5
"""Largest number of states in the strip, of images and of points."""


class NoiseDrawn(UserError):
    """A sampler drew noise in its steps."""


class Stop(NamedTuple):
    """A place that a walk passes: the noise x (n, *shape), the classes (n,) or None, and what they are called."""

    x: Tensor
    class_label: Tensor | None
    name: str


class Frame(NamedTuple):
    """The samples (n, ...) at a share of the way between two stops, in data space on the CPU, under a title."""

    x: Tensor
    share: float
    title: str


def slerp(a: Tensor, b: Tensor, share: float, dim: Sequence[int]) -> Tensor:
    """The point between a and b on the arc through both: norm and angle change evenly, over the dimensions ``dim``.

    ``|x| = (1 - share) |a| + share |b|``, ``x / |x| = (sin((1 - share) w) a / |a| + sin(share w) b / |b|) / sin(w)``
    with the angle w between a and b. share = 0 is a and share = 1 is b, bit for bit. A straight line between two draws
    of noise passes points of smaller norm, which a denoiser never sees. Where the arc is not determined (w = 0 or pi),
    the line is taken.

    Source: Shoemake, "Animating Rotation with Quaternion Curves", 1985.
    """
    if share in (0, 1):
        return b if share else a
    from_, to = a.double(), b.double()
    dim = tuple(dim)
    size_a, size_b = (torch.linalg.vector_norm(x, dim=dim, keepdim=True) for x in (from_, to))
    unit_a, unit_b = from_ / size_a, to / size_b
    angle = (unit_a * unit_b).sum(dim, keepdim=True).clamp(-1, 1).arccos()
    on_arc = (((1 - share) * angle).sin() * unit_a + (share * angle).sin() * unit_b) / angle.sin()
    on_arc = ((1 - share) * size_a + share * size_b) * on_arc
    return torch.where(angle.sin() > 1e-6, on_arc, torch.lerp(from_, to, share)).to(a.dtype)


def walk(draws: Draws, stops: Sequence[Stop], frames: int) -> Iterator[Frame]:
    """The samples at the stops and at ``frames - 1`` places between each two of them.

    The samples of a stop are those of its noise and classes alone, bit for bit. Images move one by one. Vectors move as
    one cloud: their noise is one vector of n * d numbers, so that at every place it is as normal as at the stops.
    """
    dim = range(1, stops[0].x.ndim) if stops[0].x.ndim > 2 else range(stops[0].x.ndim)
    for number, (a, b) in enumerate(pairwise(stops)):
        for k in range(number > 0, frames + 1):
            share = k / frames
            x, label = slerp(a.x, b.x, share, dim), a.class_label
            moving = draws
            if label is not None and not torch.equal(label, b.class_label):
                moving = replace(draws, denoiser=MixedClasses(draws.denoiser, b.class_label, share))
            end = moving.states_from(x, no_noise, label)[-1].x.cpu()
            yield Frame(end, number + share, _title(a, b, share))


def no_noise(x: Tensor) -> Tensor:
    """The noise of a walk's sampler: there must be none, since its samples would jump."""
    raise NoiseDrawn("this sampler draws noise in its steps, so near starts end far apart; take ddim, heun or unipc")


def interpolate_to_files(cfg: DictConfig) -> Path:
    """Walks by the settings of ``cfg``; writes ``interpolation.gif``, ``.png``, ``.npz`` and returns their folder."""
    _check(cfg)
    pretrained = Pretrained(cfg.ckpt, cfg.weights, cfg.trust, ema=cfg.ema)
    images, device = len(pretrained.shape) == 3, device_for(cfg.device)
    n = cfg.n or (IMAGES if images else POINTS)
    denoiser = pretrained.denoiser_on(device, cfg.clip)
    sampler = _sampler(cfg, pretrained, Draws(pretrained.sampler, denoiser, pretrained.shape, device=device))
    draws = pretrained.draws(sampler, device, cfg.clip, cfg.guidance)
    stops = stops_of(pretrained, draws, n, cfg.seeds, cfg.class_label)
    folder = folder_for(cfg, "interpolation", "interpolation.npz")
    begin = time.perf_counter()
    with progress_bar(draws, n * ((len(stops) - 1) * cfg.frames + 1)) as draws:
        frames = list(walk(draws, stops, cfg.frames))
    seconds = time.perf_counter() - begin
    _write(folder, frames, pretrained, cfg.frames)
    print(f"{n} walks of {len(frames)} frames in {seconds:.1f} s: {folder}")
    return folder


def stops_of(
    pretrained: Pretrained, draws: Draws, n: int, seeds: Sequence[int] | int | None, class_label: object
) -> list[Stop]:
    """The stops of n walks: walk i passes the noise of ``seed + i`` for every seed, and the classes in their order.

    A single seed or class stays the same. By default the walk goes between the classes if there are several, and else
    between the noise of the seeds 0 and n.

    Raises:
        UserError: nothing changes, or as many seeds as classes are needed.
    """
    several = isinstance(class_label, Sequence | ListConfig) and not isinstance(class_label, str)
    classes = list(class_label) if several else [class_label]
    if seeds is None:
        seeds = [0] if len(classes) > 1 else [0, n]
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    count = max(len(classes), len(seeds))
    if count < 2:
        raise UserError(
            f"seeds={seeds} and class_label={classes[0]} give no way to walk; give two seeds or two classes"
        )
    if {len(classes), len(seeds)} - {1, count}:
        raise UserError(f"{len(seeds)} seeds and {len(classes)} classes do not pair up; give as many, or one of them")
    stops = []
    for seed, name in zip(seeds * (count // len(seeds)), classes * (count // len(classes)), strict=True):
        noise = noise_of_samples(seed + i for i in range(n))
        x = draws.sampler.prior(draws.denoiser.schedule, blank(n, draws.shape, draws.device), noise)
        words = [f"seed {seed}"] * (len(seeds) > 1) + [_called(name, pretrained)] * (len(classes) > 1)
        stops.append(Stop(x, pretrained.told(n, name), ", ".join(words)))
    return stops


def _called(name: object, pretrained: Pretrained) -> str:
    """The class as its name, if the classes have names, else as it was given."""
    label = pretrained.class_labels(1, name)
    return pretrained.class_names[int(label)] if label is not None and pretrained.class_names else f"class {name}"


def _title(a: Stop, b: Stop, share: float) -> str:
    if share in (0, 1):
        return b.name if share else a.name
    return f"{a.name} → {b.name}, {100 * share:.0f} %"


def _sampler(cfg: DictConfig, pretrained: Pretrained, draws: Draws) -> Sampler:
    """The chosen sampler; by default that of the run if it draws no noise, else DDIM."""
    schedule, learned = pretrained.denoiser.schedule, pretrained.denoiser.learned_variance
    chosen: Sampler = pretrained.sampler if cfg.get("sampler") is None else make(cfg.sampler, "sampler")
    chosen.check(schedule, learned)
    try:  # two steps of one sample tell whether it draws noise
        trial = replace(draws, sampler=chosen.respaced(2))
        trial.states_from(torch.ones_like(blank(1, draws.shape, draws.device)), no_noise, pretrained.class_labels(1))
    except NoiseDrawn:
        if cfg.get("sampler") is not None:
            raise
        chosen = DDIM()
    if cfg.steps is not None or chosen.steps is None or cfg.get("sampler") is None:
        chosen = chosen.respaced(cfg.steps or min(STEPS, schedule.steps or STEPS))
    chosen.check(schedule, learned)
    return chosen


def _check(cfg: DictConfig) -> None:
    """Refuses invalid settings before the checkpoint is read."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: litdiffusion interpolate ckpt=outputs/.../checkpoints/last.ckpt")
    for name in ("frames", *(name for name in ("n", "steps") if cfg[name] is not None)):
        require_int(cfg, name, 1)
    seeds = cfg.seeds if isinstance(cfg.seeds, ListConfig) else [] if cfg.seeds is None else [cfg.seeds]
    if any(type(seed) is not int or seed < 0 for seed in seeds):
        raise UserError(f"seeds must be whole numbers of at least 0, got {cfg.seeds}")


def _write(folder: Path, frames: list[Frame], pretrained: Pretrained, per_leg: int) -> None:
    states, titles = [frame.x for frame in frames], [frame.title for frame in frames]
    shares = np.array([frame.share for frame in frames])
    write_arrays(folder / "interpolation.npz", samples=torch.stack(states).numpy(), shares=shares)
    images, limits = states[0].ndim == 4, pretrained.value_range or BYTES
    chosen = _columns(len(frames), per_leg, COLUMNS if images else PANELS)
    shown = [states[k] for k in chosen]
    heads = [f"{100 * (shares[k] % 1):.0f} %" if k % per_leg else titles[k] for k in chosen]
    if images:
        strip = trajectory_sheet([x[:IMAGES] for x in shown], heads, "", limits)
    else:
        strip = cloud_picture(shown, heads, states[0], states)
    write_picture(folder / "interpolation.png", strip)
    stops = range(0, len(frames), per_leg)
    write_atomically(folder / "interpolation.gif", walk_gif(states, titles, limits, stops))


def _columns(count: int, per_leg: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` frames: at even distances with all stops, else as evenly as possible."""
    strides = (s for s in range(1, per_leg) if per_leg % s == 0 and (count - 1) // s < most)
    stride = next(strides, None)
    if stride is not None:
        return list(range(0, count, stride))
    return sorted({round(index) for index in torch.linspace(0, count - 1, min(count, most)).tolist()})
