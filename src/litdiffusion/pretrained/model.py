"""A finished model from its checkpoint alone: no data set, no folder of yamls."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from litdiffusion.build import build_denoiser
from litdiffusion.codecs import Codec
from litdiffusion.config.make import make
from litdiffusion.config.trust import check_checkpoint_config
from litdiffusion.data import Facts, facts_of
from litdiffusion.diffusion.denoisers import ClippedDenoiser, Denoiser, GuidedDenoiser
from litdiffusion.diffusion.samplers import Draws, Sampler
from litdiffusion.errors import UserError
from litdiffusion.pretrained.exporting import read_export
from litdiffusion.pretrained.places import device_for
from litdiffusion.pretrained.progress import draw_samples
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import read_checkpoint
from litdiffusion.training.class_labels import in_turn

PREFIXES = {"ema": "ema.model.", "raw": "denoiser."}
"""Names of the denoiser's weights in a checkpoint begin with these, by the choice of weights."""


class Pretrained:
    """A model from a checkpoint, ready to sample: the denoiser with the chosen weights, its sampler and its codec.

    ``shape`` is that of one sample in model space; ``num_classes`` is 0 unless the model is conditional.

    Args:
        path: a checkpoint, or the folder of an exported model.
        weights: "ema" or "raw".
        trust: packages that the checkpoint's config may name, beside litdiffusion's parts and networks of known ones.
        module: a module like the trained one. Copies of its parts are used in place of the config's, for a network that
            the checkpoint cannot describe.

    Raises:
        UserError: a file that is damaged, foreign, or names more than it may (see `trust.check_checkpoint_config`).
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
            self.denoiser.load_state_dict(_with_prefix(content["state_dict"], PREFIXES[weights]))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            owner = "its own config" if module is None else "this module"
            raise UserError(f"the weights of {path} do not fit {owner} ({reason}); take another file") from error

    def _parts(self) -> tuple[Codec, Sampler, Denoiser]:
        """Codec, sampler and denoiser as the config describes them."""
        for part in ("parameterization", "model"):
            self.check_part(part)
        return (
            self.make_part("codec"),
            self.make_part("sampler"),
            build_denoiser(self.config, self.make_part("schedule")),
        )

    def make_part(self, part: str) -> Any:
        """A part that the stored config describes, "data" say, made if it names no more than it may."""
        self.check_part(part)
        return make(self.config[part], part)

    def data(self) -> Facts:
        """The data that the model was trained on, loaded."""
        return facts_of(self.make_part("data"))

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
        return draw_samples(draws, n, seed, batch_size, self.class_labels(n, class_label))

    def draws(self, sampler: Sampler, device: torch.device, clip: bool = True, guidance: float | None = None) -> Draws:
        """What draws samples in data space by ``sampler``, see `denoiser_on`."""
        return Draws(sampler, self.denoiser_on(device, clip, guidance), self.shape, self.codec.decode, device)

    def check_part(self, part: str) -> None:
        if part not in self.config:
            raise UserError(
                f"the config of this checkpoint has no {part}: it was trained from a script, or not by litdiffusion; "
                f"take a checkpoint of train.py"
            )
        check_checkpoint_config(OmegaConf.to_container(self.config[part], resolve=False), part, self._trust)

    def denoiser_on(self, device: torch.device, clip: bool, guidance: float | None = None) -> nn.Module:
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
            return in_turn(n, self.num_classes)
        if not self.num_classes:
            raise UserError(
                f"class_label={class_label} needs a model of classes, trained with conditional=true; leave it out"
            )
        classes = (
            list(class_label)
            if isinstance(class_label, (Sequence, ListConfig)) and not isinstance(class_label, str)
            else [class_label]
        )
        if not classes or not all(type(k) is int and 0 <= k < self.num_classes for k in classes):
            raise UserError(f"class_label must be whole numbers from 0 to {self.num_classes - 1}, got {class_label}")
        return torch.tensor(classes)[torch.arange(n) % len(classes)]

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


def _copies(module: DiffusionModule) -> tuple[Codec, Sampler, Denoiser]:
    return copy.deepcopy((module.codec, module.sampler, module.denoiser))


def _with_prefix(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
