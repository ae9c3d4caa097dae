"""Loads a model from a checkpoint; needs neither the data set nor the yamls."""

import copy
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from litdiffusion.build import build_denoiser
from litdiffusion.codecs import Codec
from litdiffusion.config.guide import DEFAULT, Guide
from litdiffusion.config.make import make, make_a
from litdiffusion.config.received import check_plain, checked_description, checked_part
from litdiffusion.config.settings import guidance_of
from litdiffusion.data import Facts, facts_of
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import ClippedDenoiser, Denoiser, FittingDenoiser, in_precision
from litdiffusion.diffusion.samplers import Draws, Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import Quality
from litdiffusion.pretrained.conditions import Condition, captions_of, values_for
from litdiffusion.pretrained.exporting import CODEC, check_weights, denoiser_state, read_export, with_prefix
from litdiffusion.pretrained.locations import located
from litdiffusion.pretrained.outputs import device_for
from litdiffusion.pretrained.progress import draw_samples
from litdiffusion.pretrained.sizes import check_size, limited_by
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import is_autoencoder, read_checkpoint
from litdiffusion.training.class_labels import (
    class_called,
    classes_in_proportion,
    classes_in_turn,
    classes_of_model,
)
from litdiffusion.training.conditions import class_column, joined, rows_drawn

ClassChoice = int | str | Sequence[int | str] | None
"""Classes to draw: a number, a name, several of them in turn, or None for all classes in turn."""


class Pretrained:
    """A model from a checkpoint, ready to sample: denoiser with the chosen weights, sampler and codec.

    ``shape`` is the shape of one sample in model space; ``num_classes`` is 0 unless the model is conditional, and
    ``class_names`` are the names of its classes, if the data had some. ``conditions`` are its continuous conditions,
    with the mean, std, low and high of the training items.

    Args:
        path: a checkpoint, the folder of an exported model, ``hf:USER/NAME`` on the Hugging Face hub (also
            ``@REVISION``), or the name of a model of the package, "digits".
        weights: "ema" or "raw".
        ema: width of a post-hoc average of a run with ``callbacks=posthoc_ema``, see `posthoc_average`; None: the plain
            average, or the raw weights.
        trust: further packages that the checkpoint's config may name, see `checked_part`.
        module: a module like the trained one, for a network that the checkpoint cannot describe. Copies of its parts
            are used instead of those of the config.

    Raises:
        UserError: the file is damaged, is no checkpoint of litdiffusion, or names code that is not trusted.
    """

    def __init__(
        self,
        path: str | Path,
        weights: str = "ema",
        trust: str | Sequence[str] = (),
        module: DiffusionModule | None = None,
        ema: float | None = None,
    ):
        check_weights(weights, ema)
        path = located(path)
        content = read_export(path, weights) if path.is_dir() else read_checkpoint(path)
        if is_autoencoder(content):
            raise UserError(f"{path} holds an autoencoder; a diffusion takes it by codec=autoencoder codec.ckpt={path}")
        settings, self.value_range, self.class_names = checked_description(content["litdiffusion"], path)
        self._parts: dict[str, Any] = content["litdiffusion"]["config"]
        self._trust = [trust] if isinstance(trust, str) else list(trust)
        self.config: DictConfig = OmegaConf.create({**settings, "compile": False})
        self.shape = tuple(self.config.derived.shape)
        self.num_classes: int = self.config.derived.num_classes
        self.conditions: list[dict[str, Any]] = OmegaConf.to_container(self.config.derived.conditions)
        self.codec: Codec
        self.sampler: Sampler
        self.codec, self.sampler, self.denoiser = self._made(content) if module is None else _copies(module)
        self.denoiser.eval()
        try:
            self.denoiser.load_state_dict(denoiser_state(path, content, weights, ema))
            self.codec.load_state_dict(with_prefix(content["state_dict"], CODEC))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            owner = "its own config" if module is None else "this module"
            raise UserError(f"the weights of {path} do not fit {owner} ({reason}); take another file") from error

    def _made(self, content: dict[str, Any]) -> tuple[Codec, Sampler, Denoiser]:
        """Makes codec, sampler and denoiser from the stored config, after a look at the shapes of the weights."""
        for part in ("model", "codec", "schedule", "parameterization", "sampler"):
            self.config[part] = self.part(part)
        state = content["state_dict"]
        check_size(partial(make, self.config.model, "model"), state)
        schedule = make_a(NoiseSchedule, self.config.schedule, "schedule")
        sampler = make_a(Sampler, self.config.sampler, "sampler")
        with limited_by(state):
            codec = make_a(Codec, self.config.codec, "codec")
            return codec, sampler, build_denoiser(self.config, schedule)

    def part(self, name: str, paths: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A section of the stored config, if `checked_part` allows it; ``paths`` as there."""
        if not self.has(name):
            raise UserError(
                f"the config of this checkpoint has no {name}: it was trained in a script, or not by litdiffusion; "
                f"take a checkpoint of train.py"
            )
        return checked_part(self._parts[name], name, self._trust, paths)

    def section(self, name: str) -> Any:
        """A section of the stored config as it stands, to be stored again: plain values, of which nothing is made."""
        check_plain(self._parts[name], name)
        return self._parts[name]

    def has(self, name: str) -> bool:
        """Whether the stored config has this section."""
        return bool(self._parts.get(name))

    def data(self, root: str | None = None, path: str | None = None) -> Facts:
        """Loads the data that the model was trained on.

        Args:
            root: folder of downloaded data sets; None: ``LITDIFFUSION_DATA``, or ``./data``.
            path: the folder of images, or the table, of a model of one's own data. A path in the checkpoint is never
                used.
        """
        paths = {"root": _root(root), **({} if path is None else {"path": path})}
        node = OmegaConf.create(self.part("data", paths))
        if self._parts["data"].get("path") is not None and "path" not in node:
            raise UserError("this model was trained on files of your own; give their path by data_path=/my/data")
        return facts_of(make(node, "data"))

    def metrics(self, root: str | None = None) -> Quality:
        """The metrics that the model was trained with; they keep what they compute in ``root``, see `data`."""
        return make(OmegaConf.create(self.part("metrics", {"cache": f"{_root(root)}/metrics"})), "metrics")

    def sample(
        self,
        n: int,
        seed: int = 0,
        class_label: ClassChoice = None,
        condition: Condition = None,
        *,
        clip: bool = True,
        guidance: float | None = None,
        guide: Guide | None = None,
        batch_size: int = 256,
        device: str = "auto",
        precision: str = "32-true",
    ) -> Tensor:
        """Samples (n, ...) in data space; equal to those of ``scripts/sample.py`` with the same settings.

        ``class_label`` and ``condition`` as in `told`.
        """
        draws = self.draws(self.sampler, device_for(device), clip, guidance, guide, precision)
        return draw_samples(draws, n, seed, batch_size, self.told(n, class_label, condition))

    def draws(
        self,
        sampler: Sampler,
        device: torch.device,
        clip: bool = True,
        guidance: float | None = None,
        guide: Guide | None = None,
        precision: str = "32-true",
    ) -> Draws:
        """Draws samples in data space by ``sampler``; weight and kind of guidance are by default the training run's.

        ``precision`` is one of `autocast.DTYPES`. Batches that do not fit into memory are computed in parts.
        """
        denoiser = self.denoiser_on(device, clip, self.weight(guidance, guide), guide)
        denoiser = FittingDenoiser(in_precision(denoiser, precision))
        return Draws(sampler, denoiser, self.shape, self.codec.to(device).decode, device)

    def denoiser_on(
        self, device: torch.device, clip: bool, guidance: float = 1.0, guide: Guide | None = None
    ) -> nn.Module:
        """The denoiser on a device, guided by the weight ``guidance``; ``clip`` limits x_0 to the data's range."""
        denoiser: nn.Module = self.denoiser.to(device)
        guide = guide or self.guide()
        if guidance_of(self.config, guidance, guide.kind) != 1:
            denoiser = guide(denoiser, guidance).to(device)
        clip_range = self.codec.latent_range(self.value_range, self.shape) if clip else None
        return denoiser if clip_range is None else ClippedDenoiser(denoiser, *clip_range)

    def told(self, n: int, class_label: ClassChoice = None, condition: Condition = None) -> Tensor | None:
        """What the net is told of n samples: the classes of `class_labels`, and conditions such as ``{"angle": 1.2}``.

        A condition that is not named is not told: the samples then are of p(x | the others). Returns class labels (n,)
        for a model of classes alone, None for an unconditional one, else columns (n, C), see `nets.conditions`.

        Raises:
            UserError: the model does not have these classes or conditions.
        """
        class_labels = self.class_labels(n, class_label)
        values = values_for(n, condition, self.conditions, self.config.class_dropout > 0)
        return joined(class_labels, values) if self.conditions else class_labels

    def told_like(self, data: Facts, count: int, seed: int) -> tuple[Tensor | None, Tensor | None]:
        """What the net is told of ``count`` samples distributed as the training items of ``data``.

        Returns class labels (count,) as the data count them, None without classes, and what the net is told as in
        `told`. Classes alone come in proportion, with conditions random items lend both.
        """
        labelled = self.labels_in(data, data.train, "give labelled data by data_path") if self.num_classes else None
        if self.conditions:
            data.choose_conditions(self.condition_names)
            rows = rows_drawn(joined(labelled, data.train.conditions), count, seed)
            class_labels = class_column(rows, self.num_classes)
        else:
            class_labels = None if labelled is None else classes_in_proportion(labelled, count)
        own = None if class_labels is None else self.own_classes(data, class_labels)
        return class_labels, joined(own, rows[:, -len(self.conditions) :]) if self.conditions else own

    def captions(self, told: Tensor | None, named: bool = True) -> list[str]:
        """What each sample was told, in a few words, see `captions_of`."""
        return captions_of(told, self.num_classes, self.class_names, self.conditions, named)

    def told_arrays(self, told: Tensor | None) -> dict[str, Any]:
        """What samples were told, as the arrays of a file: their classes and conditions, and the names of both."""
        class_labels, arrays = class_column(told, self.num_classes), {}
        if class_labels is not None:
            arrays = {"class_labels": class_labels, **({"class_names": self.class_names} if self.class_names else {})}
        if told is not None and self.conditions:
            arrays |= {"conditions": told[:, -len(self.conditions) :], "condition_names": self.condition_names}
        return arrays

    @property
    def condition_names(self) -> list[str]:
        """Names of the continuous conditions, in the order of their columns."""
        return [scale["name"] for scale in self.conditions]

    def weight(self, guidance: float | None = None, guide: Guide | None = None) -> float:
        """The weight of guidance that ``guidance`` stands for; None is that of the training run."""
        guidance = self.config.guidance if guidance is None else guidance
        return guidance_of(self.config, guidance, (guide or self.guide()).kind)

    def guide(self, node: DictConfig | None = None, root: str | None = None, path: str | None = None) -> Guide:
        """The guidance of a config of ``conf/guide``; None is that of the training run.

        Nothing is loaded before it is used. Classifier guidance needs the data then; ``root``, ``path``: see `data`.
        """
        if node is None:
            node = self.part("guide", {"cache": f"{_root(root)}/metrics"}) if self.has("guide") else DEFAULT
        return Guide(node, self.config, self.codec, partial(self.data, root, path), self._trust)

    def class_labels(self, n: int, class_label: ClassChoice = None) -> Tensor | None:
        """The class labels (n,) of n samples: ``class_label`` repeated in turn, by default all classes in turn.

        Classes are given by their numbers or their names, one or several, see `class_called`.

        Returns None for an unconditional model.

        Raises:
            UserError: the model does not have these classes.
        """
        if class_label is None:
            return classes_in_turn(n, self.num_classes)
        if not self.num_classes:
            raise UserError(
                f"class_label={class_label} needs a model that was trained with conditional=true; leave it out"
            )
        several = isinstance(class_label, (Sequence, ListConfig)) and not isinstance(class_label, str)
        chosen = list(class_label) if several else [class_label]
        if not chosen:
            raise UserError("class_label=[] names no class; leave it out for all classes in turn")
        classes = [class_called(k, self.class_names, self.num_classes) for k in chosen]
        return torch.tensor(classes)[torch.arange(n) % len(classes)]

    def class_labels_of(
        self, data: Facts, n: int, class_label: ClassChoice = None, condition: Condition = None
    ) -> Tensor | None:
        """What the net is told of the first n validation items of `DataModule.reference`, in the form of `told`.

        Classes and conditions are those of the items; with ``class_label``, or a condition's name, those of `told`.

        Raises:
            UserError: items without class labels, or of a class that the model does not have, or unknown conditions.
        """
        class_labels = self._classes_of(data, n, class_label)
        if self.conditions:
            data.choose_conditions(self.condition_names)
        own = data.val.conditions[:n] if self.conditions else torch.empty(0, 0)
        given = values_for(len(own), condition, self.conditions, drops=True)  # NaN: its own
        return joined(class_labels, own.where(given.isnan(), given)) if self.conditions else class_labels

    def _classes_of(self, data: Facts, n: int, class_label: ClassChoice) -> Tensor | None:
        if class_label is not None:
            return self.class_labels(min(n, len(data.reference(n))), class_label)
        if not self.num_classes:
            return None
        labelled = self.labels_in(data, data.val, f"give one class for all items by class_label={self._first_class()}")
        return self.own_classes(data, labelled[:n])

    def labels_in(self, data: Facts, part: Batch, remedy: str) -> Tensor:
        """The class labels of a part of the data, as the data count them; a `UserError` with ``remedy`` without any."""
        if part.class_label is None:
            why = f": {data.why_no_classes}" if data.why_no_classes else ""
            raise UserError(f"{data.name} has no class labels, which this model needs{why}; {remedy}")
        return part.class_label

    def own_classes(self, data: Facts, class_label: Tensor) -> Tensor:
        """The model's class labels for those of the data: by name where both have names, see `classes_of_model`."""
        return classes_of_model(class_label, data.class_names, self.class_names, self.num_classes)

    def _first_class(self) -> int | str:
        return self.class_names[0] if self.class_names else 0


def _copies(module: DiffusionModule) -> tuple[Codec, Sampler, Denoiser]:
    return copy.deepcopy((module.codec, module.sampler, module.denoiser))


def _root(root: str | None) -> str:
    """The folder of downloaded data sets."""
    return root or os.environ.get("LITDIFFUSION_DATA", "./data")
