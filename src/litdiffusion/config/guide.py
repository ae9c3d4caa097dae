"""The guidance of a config, with what it needs beside its settings: another model, or a classifier."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from litdiffusion.codecs import Codec
from litdiffusion.config.make import class_of, make, make_a
from litdiffusion.data import Facts
from litdiffusion.diffusion.denoisers import Guidance
from litdiffusion.measure.features import ClassifierFeatures

DEFAULT = {"_target_": "litdiffusion.diffusion.denoisers.ClassifierFreeGuidance"}
LOADER = "litdiffusion.pretrained.guides.guide_denoiser"
"""Loads a guide's checkpoint. Called by its name, since a room above this one knows how to."""


class Guide:
    """A kind of guidance with its settings: ``guide(denoiser, weight)`` is the guided denoiser.

    A setting ``ckpt`` (with ``weights``) becomes the argument ``guide``, the denoiser of that checkpoint. A setting
    ``features`` becomes ``classifier``, which gives the logits of items in model space. Both are loaded at the first
    call and kept, outside of every module.

    Args:
        node: a config of ``conf/guide``.
        config: the config of the model to guide, with ``derived`` filled in.
        codec: its codec.
        data: a function that gives its data.
        trust: packages that the config in ``ckpt`` may name, see `checked_part`.

    Raises:
        UserError: a target that is no `Guidance`.
    """

    def __init__(
        self, node: Any, config: DictConfig, codec: Codec, data: Callable[[], Facts], trust: Sequence[str] = ()
    ):
        node = node if OmegaConf.is_config(node) else OmegaConf.create(node)
        self.kind: type[Guidance] = class_of(Guidance, node, "guide")
        self._settings, self._config, self._codec, self._data, self._trust = node.copy(), config, codec, data, trust

    def __call__(self, denoiser: nn.Module, weight: float) -> Guidance:
        """The guided denoiser.

        Raises:
            UserError: another model or a classifier that does not fit, or settings that the class refuses.
        """
        node, needs = self._made
        return make_a(Guidance, node, "guide", denoiser=denoiser, weight=weight, **needs)

    @cached_property
    def _made(self) -> tuple[DictConfig, dict[str, Any]]:
        plain: dict[str, Any] = dict(OmegaConf.to_container(self._settings, resolve=True))
        needs: dict[str, Any] = {}
        if "ckpt" in plain:
            ckpt = None if OmegaConf.is_missing(self._settings, "ckpt") else plain["ckpt"]
            call = {"_target_": LOADER, "ckpt": ckpt, "weights": plain.pop("weights", "ema")}
            del plain["ckpt"]
            main = {"shape": tuple(self._config.derived.shape), "num_classes": self._config.derived.num_classes}
            context = {**main, "codec": self._codec, "trust": list(self._trust)}
            needs["guide"] = make(OmegaConf.create(call), "guide", **context)
        if "features" in plain:
            features = make_a(ClassifierFeatures, OmegaConf.create(plain.pop("features")), "guide.features")
            needs["classifier"] = DecodedLogits(features.prepare(self._data()).net, self._codec)
        return OmegaConf.create(plain), needs


class DecodedLogits(nn.Module):
    """The logits (B, K) of a classifier of images, for items in model space (B, ...)."""

    def __init__(self, classifier: nn.Module, codec: Codec):
        super().__init__()
        self.classifier, self.codec = classifier, codec

    def forward(self, x_0: Tensor) -> Tensor:
        """Logits for the decoded x_0, in float32."""
        return self.classifier(self.codec.decode(x_0).float())[1]
