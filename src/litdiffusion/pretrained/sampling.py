"""Samples from a checkpoint alone: no data set, no training config folder."""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from litdiffusion.build import build_denoiser, build_module
from litdiffusion.codecs import Codec
from litdiffusion.config.make import make
from litdiffusion.config.settings import check_folder, require_int
from litdiffusion.config.trust import check_sent
from litdiffusion.data import Facts, facts_of
from litdiffusion.diffusion.denoisers import ClippedDenoiser, Denoiser, GuidedDenoiser
from litdiffusion.diffusion.levels import per_sample_noise
from litdiffusion.diffusion.samplers import Draws, Sampler
from litdiffusion.errors import UserError
from litdiffusion.plots import comparison_picture, image_grid
from litdiffusion.pretrained.exporting import read_export
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import read_checkpoint
from litdiffusion.training.class_labels import classes_in_turn, grid_columns

PREFIXES = {"ema": "ema.model.", "raw": "denoiser."}


class Pretrained:
    """What a checkpoint holds for sampling: the denoiser with the chosen weights, its sampler and its codec.

    ``num_classes`` is the number of those that its net is told, 0 of an unconditional model.

    Args:
        path: of a checkpoint, or the folder of an exported model.
        weights: "ema" or "raw".
        trust: packages that its config may name beside litdiffusion's own parts and the networks of known packages.
        module: like the one that was trained; its parts are taken in place of the config's, and stay as they are. For
            a network that the checkpoint cannot describe.

    Raises:
        UserError: a file that is damaged, foreign, or names more than it may (see `trust.check_sent`).
    """

    def __init__(
        self,
        path: str | Path,
        weights: str = "ema",
        trust: str | Sequence[str] = (),
        module: DiffusionModule | None = None,
    ):
        if weights not in PREFIXES:
            raise UserError(f"weights must be one of {', '.join(PREFIXES)}, got {weights!r}")
        content = read_export(path, weights) if Path(path).is_dir() else read_checkpoint(path)
        record = content["litdiffusion"]
        self._trust = [trust] if isinstance(trust, str) else list(trust)
        self.config: DictConfig = OmegaConf.create({**record["config"], "compile": False})
        self.value_range: tuple[float, float] | None = record["value_range"]
        self.shape = tuple(self.config.derived.shape)
        self.num_classes: int = self.config.derived.get("num_classes") or 0
        self.codec: Codec
        self.sampler: Sampler
        self.codec, self.sampler, self.denoiser = self._parts() if module is None else _copies(module)
        self.denoiser.eval()
        try:
            self.denoiser.load_state_dict(_part(content["state_dict"], PREFIXES[weights]))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            owner = "its own config" if module is None else "this module"
            raise UserError(f"the weights of {path} do not fit {owner} ({reason}); take another file") from error

    def _parts(self) -> tuple[Codec, Sampler, Denoiser]:
        """Codec, sampler and denoiser as the config describes them."""
        for part in ("parameterization", "model"):
            self.check(part)
        return self.made("codec"), self.made("sampler"), build_denoiser(self.config, self.made("schedule"))

    def made(self, part: str) -> Any:
        """A part that the stored config describes, "data" say, made if it names no more than it may."""
        self.check(part)
        return make(self.config[part], part)

    def data(self) -> Facts:
        """The data that the model was trained on, loaded."""
        return facts_of(self.made("data"))

    def sample(
        self,
        n: int,
        seed: int = 0,
        class_label: int | Sequence[int] | None = None,
        *,
        clip: bool = True,
        guidance: float | None = None,
        batch_size: int = 256,
        device: str = "auto",
    ) -> Tensor:
        """Samples (n, ...) in data space, those of ``scripts/sample.py`` with the same settings."""
        draws = self.draws(self.sampler, device_for(device), clip, guidance)
        return drawn(draws, n, seed, batch_size, self.class_labels(n, class_label))

    def draws(self, sampler: Sampler, device: torch.device, clip: bool = True, guidance: float | None = None) -> Draws:
        """What draws samples in data space by ``sampler``, see `on`."""
        return Draws(sampler, self.on(device, clip, guidance), self.shape, self.codec.decode, device)

    def check(self, part: str) -> None:
        if part not in self.config:
            raise UserError(
                f"the config of this checkpoint has no {part}: it was trained from a script, or not by litdiffusion; "
                f"take a checkpoint of train.py"
            )
        check_sent(OmegaConf.to_container(self.config[part], resolve=False), part, self._trust)

    def on(self, device: torch.device, clip: bool, guidance: float | None = None) -> nn.Module:
        """The denoiser on a device, guided where a weight is given, with ``clip`` kept in the data's range if any."""
        denoiser = self.denoiser.to(device)
        if guidance is not None:
            self._check_guidance(guidance)
            denoiser = GuidedDenoiser(denoiser, guidance)
        return ClippedDenoiser(denoiser, *self.value_range) if clip and self.value_range is not None else denoiser

    def class_labels(self, n: int, class_label: int | Sequence[int] | None = None) -> Tensor | None:
        """The classes (n,) of n samples: those of ``class_label``, one or several, in turn; None takes all in turn.

        None of an unconditional model, which every part takes for no condition.

        Raises:
            UserError: classes that the model does not have.
        """
        if class_label is None:
            return classes_in_turn(n, self.num_classes)
        if not self.num_classes:
            raise UserError(
                f"class_label={class_label} needs a model of classes, trained with conditional=true; leave it out"
            )
        asked = (
            list(class_label)
            if isinstance(class_label, (Sequence, ListConfig)) and not isinstance(class_label, str)
            else [class_label]
        )
        if not asked or not all(type(k) is int and 0 <= k < self.num_classes for k in asked):
            raise UserError(f"class_label must be whole numbers from 0 to {self.num_classes - 1}, got {class_label}")
        return torch.tensor(asked)[torch.arange(n) % len(asked)]

    def class_labels_of(self, data: Facts, n: int) -> Tensor | None:
        """The classes of the first n validation items, as `DataModule.reference` has them; None without classes."""
        return data.val.class_label[:n] if self.num_classes else None

    def _check_guidance(self, weight: float) -> None:
        if type(weight) not in (int, float):
            raise UserError(f"guidance must be a number, 1 to 10 are usual, got {weight!r}")
        if not self.num_classes:
            raise UserError(f"guidance={weight} needs a model of classes, trained with conditional=true; leave it out")
        if weight != 1 and not self.config.class_dropout:
            raise UserError(
                f"guidance={weight} needs a model that was trained without its class too, with class_dropout above 0; "
                f"leave it out"
            )


def restored_module(
    path: str | Path,
    trust: str | Sequence[str] = (),
    kind: type[DiffusionModule] = DiffusionModule,
    strict: bool = True,
    **settings: Any,
) -> DiffusionModule:
    """The module of a checkpoint with all of its weights, to train on or to sample from.

    Args:
        path: of a checkpoint.
        trust: as for `Pretrained`.
        kind: class of the module.
        strict: whether the names of all weights must fit.
        settings: of the config that replace those in the file: ``seed=1``, say.
    """
    content = read_checkpoint(path)
    pretrained = Pretrained(path, trust=trust)
    for part in ("times", "weighting", "objective", "optimizer", "lr_schedule"):
        if pretrained.config.get(part):
            pretrained.check(part)
    config = OmegaConf.merge(pretrained.config, settings)
    schedule = make(config.schedule, "schedule")
    module = build_module(config, pretrained.codec, schedule, pretrained.value_range, kind=kind)
    module.load_state_dict(content["state_dict"], strict=strict)
    module.on_load_checkpoint({key: value for key, value in content.items() if key != "loops"})
    return module.eval()


def sample_to_files(cfg: DictConfig) -> Path:
    """Draws ``cfg.n`` samples, writes ``samples.png`` and ``samples.npz`` and returns their folder."""
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: python scripts/sample.py ckpt=outputs/.../checkpoints/last.ckpt")
    for name, least in {"n": 1, "batch_size": 1, "seed": 0, **({"steps": 1} if cfg.steps is not None else {})}.items():
        require_int(cfg, name, least)
    pretrained = Pretrained(cfg.ckpt, cfg.weights, cfg.trust)
    sampler = _sampler(cfg, pretrained)
    class_labels = pretrained.class_labels(cfg.n, cfg.class_label)
    draws = pretrained.draws(sampler, device_for(cfg.device), cfg.clip, cfg.guidance)
    folder = folder_for(cfg, "samples", "samples.npz")
    begin = time.perf_counter()
    samples = drawn(draws, cfg.n, cfg.seed, cfg.batch_size, class_labels)
    seconds = time.perf_counter() - begin
    _write(folder, samples, class_labels, cfg, pretrained)
    print(f"{len(samples)} samples in {seconds:.1f} s, {len(samples) / seconds:.1f} samples/s: {folder}")
    return folder


def drawn(draws: Draws, n: int, seed: int, batch_size: int, class_labels: Tensor | None) -> Tensor:
    """n samples on the CPU, with a progress bar; sample i depends on ``seed + i`` and its class alone."""
    parts = []
    with counted(draws, n) as draws:
        for start in range(0, n, batch_size):
            places = range(start, min(start + batch_size, n))
            noise = per_sample_noise([seed + i for i in places])
            parts.append(draws.batch(places, noise, class_labels).x.cpu())
    return torch.cat(parts)


@contextmanager
def counted(draws: Draws, n: int) -> Iterator[Draws]:
    """The same draws, with a progress bar over the steps of all ``n`` samples."""
    steps = n * (len(draws.sampler.levels(draws.denoiser.schedule)) - 1)
    with tqdm(total=steps, unit="step", unit_scale=True, desc="sampling", mininterval=0.5) as bar:
        yield replace(draws, on_state=lambda state: bar.update(len(state.x) if state.step > 0 else 0))


def _sampler(cfg: DictConfig, pretrained: Pretrained) -> Sampler:
    sampler = pretrained.sampler if cfg.get("sampler") is None else make(cfg.sampler, "sampler")
    sampler = sampler if cfg.steps is None else sampler.respaced(cfg.steps)
    sampler.check(pretrained.denoiser.schedule, pretrained.denoiser.learned_variance)
    return sampler


def _write(folder: Path, samples: Tensor, class_labels: Tensor | None, cfg: DictConfig, pretrained: Pretrained) -> None:
    beside = {
        "seeds": np.arange(cfg.n) + cfg.seed,
        **({} if class_labels is None else {"class_labels": class_labels.numpy()}),
    }
    np.savez_compressed(folder / "samples.npz", samples=samples.numpy(), **beside)
    if samples.ndim == 4:
        shown = samples[:400]
        side = grid_columns(len(shown), 0 if class_labels is None else len(class_labels.unique()))
        picture = image_grid(shown, side, pretrained.value_range or (-1.0, 1.0))
    else:
        picture = comparison_picture({"samples": samples})
    picture.save(folder / "samples.png")


def folder_for(cfg: DictConfig, name: str, file: str, ckpt: str | None = None) -> Path:
    """Makes the folder ``cfg.out``, or the first unused ``name_000`` ... beside the checkpoint, before the work starts.

    The checkpoint is ``cfg.ckpt`` unless it is given.

    Raises:
        UserError: a folder that cannot be made, or that holds ``file``.
    """
    beside = Path(ckpt or cfg.ckpt).parent
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


def _copies(module: DiffusionModule) -> tuple[Codec, Sampler, Denoiser]:
    return copy.deepcopy((module.codec, module.sampler, module.denoiser))


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
