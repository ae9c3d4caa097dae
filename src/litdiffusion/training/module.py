"""Training of a denoiser, as Lightning hooks."""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from litdiffusion.codecs import Codec, Identity
from litdiffusion.data.augment import Augment
from litdiffusion.data.base import as_batch
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import ClassifierFreeGuidance, Denoiser, ExactOutput
from litdiffusion.diffusion.objectives import DenoisingObjective, Losses
from litdiffusion.diffusion.samplers import Ancestral, Sampler
from litdiffusion.training.base import MakeOptimizer, MakeSchedule, TrainingModule
from litdiffusion.training.class_labels import checked_class_names, with_class_dropout
from litdiffusion.training.conditions import with_dropout
from litdiffusion.training.description import description_of
from litdiffusion.training.ema import EMA
from litdiffusion.training.evaluation import Evaluation
from litdiffusion.training.joined import Joined, gathered
from litdiffusion.training.latents import keep_latents
from litdiffusion.training.optimizers import NetAdamW
from litdiffusion.training.quartiles import NAMES, quartile_index, quartile_means, sums_by_quartile


class DiffusionModule(TrainingModule[Losses], Evaluation):
    """Trains ``denoiser`` on ``objective``; validates and samples with the averaged weights.

    A batch is a tensor x (B, *shape), a pair (x, class label) or a `Batch`; bytes are read as images in [-1, 1].

    Args:
        denoiser: the denoiser to train.
        objective: the loss of a batch.
        shape: shape of one sample in model space.
        sampler: draws samples for the callbacks and scripts; None: `Ancestral`.
        codec: maps between data space and model space; None: the identity.
        optimizer: function denoiser -> optimizer.
        lr_schedule: function (optimizer, total steps) -> a scheduler of ``torch.optim``, which moves after every step,
            or Lightning's dictionary with a scheduler, which moves after every epoch unless the dictionary says
            otherwise. None: the rate is constant.
        ema_decay: decay of the weight average; 0 keeps the average equal to the weights.
        seed: determines, with the step, the batch and the item, every random number of a training step.
        clip: range that x_0 is clamped to while sampling, or None.
        num_classes: number of classes of a conditional model; 0: class labels are not used.
        class_dropout: share of training items whose class is dropped, so that the net also learns p(x); with
            continuous conditions see `with_dropout`.
        guidance: weight of the guidance of samples (see `Guidance`); 1: none.
        guide: function (denoiser, weight) -> guided denoiser: a class of `Guidance`, or a partial of one.
        exact_denoiser: exact denoiser of the data, if known: its loss is the smallest that can be reached.
        class_names: names of the classes of a conditional model, for pictures and scripts; empty: they have none.
        augment: random changes of training images, the same in every run with this seed; None: no changes.
        conditions: continuous conditions that the net is told, see `litdiffusion.data.conditions.condition_scales`; the
            net is given the same.
        skip_nonfinite: how many steps without a finite gradient are skipped before the run stops.
        description: plain values stored in every checkpoint, enough to rebuild the module; None: made from the
            constructor arguments that the parts store, see `description_of`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: DenoisingObjective,
        shape: tuple[int, ...],
        sampler: Sampler | None = None,
        codec: Codec | None = None,
        optimizer: MakeOptimizer = NetAdamW,
        lr_schedule: MakeSchedule | None = None,
        ema_decay: float = 0.999,
        seed: int = 0,
        clip: tuple[float, float] | None = None,
        num_classes: int = 0,
        class_dropout: float = 0.1,
        guidance: float = 1.0,
        guide: Callable[[nn.Module, float], nn.Module] = ClassifierFreeGuidance,
        exact_denoiser: nn.Module | None = None,
        class_names: Sequence[str] = (),
        augment: Augment | None = None,
        skip_nonfinite: int = 0,
        conditions: Sequence[Mapping[str, Any]] = (),
        description: dict[str, Any] | None = None,
    ):
        super().__init__(Losses, optimizer, lr_schedule, seed, augment, skip_nonfinite)
        self.denoiser = denoiser
        self.ema = EMA(denoiser, ema_decay)
        self.codec = Identity() if codec is None else codec
        self.objective = objective
        self.sampler = Ancestral() if sampler is None else sampler
        objective.check(denoiser)
        self.sampler.check(denoiser.schedule, denoiser.learned_variance)
        self.shape = tuple(shape)
        self.num_classes, self.class_names = num_classes, checked_class_names(class_names, num_classes)
        self.conditions = [dict(scale) for scale in conditions]
        parts = {"codec": self.codec, "sampler": self.sampler, "optimizer": optimizer, "lr_schedule": lr_schedule}
        parts |= {"ema_decay": ema_decay, "seed": seed, "class_dropout": class_dropout}
        parts |= {"guidance": guidance, "guide": guide}
        parts["skip_nonfinite"] = skip_nonfinite
        told = num_classes, self.conditions
        described = description or description_of(denoiser, objective, clip, self.shape, *told, parts)
        self.description = described | ({"class_names": self.class_names} if self.class_names else {})
        self._clip, self._class_dropout, self.guidance = clip, class_dropout, guidance
        self._guide = guide
        self._kept_latents: bool | None = None
        # In a list, so that torch does not train, move or save it.
        self._exact_output = [] if exact_denoiser is None else [ExactOutput(exact_denoiser, denoiser.parameterization)]

    @property
    def trained(self) -> Denoiser:
        return self.denoiser

    def on_fit_start(self) -> None:
        if self._kept_latents is not False:  # a resumed run goes on as it began, to the last bit
            self._kept_latents = keep_latents(self.trainer, self.codec, self.shape)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["progress"]["kept_latents"] = self._kept_latents

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._kept_latents = checkpoint.get("progress", {}).get("kept_latents")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = as_batch(batch)
        draws = self.seed_step(batch_idx)
        x_0 = self.encoded(self.augmented(batch, batch_idx), f"training batch {batch_idx}")
        class_label = self.drop_class(batch, draws)
        losses = self.objective(self.denoiser, x_0, class_label, draws.normal, self.time_offset(batch_idx))
        self.train_log.add(losses)
        return losses.mean()

    def time_offset(self, batch_idx: int) -> float:
        """Offset of this process's times; the times of all processes together cover their distribution evenly."""
        shared = self._seed_of("times", batch_idx) / 2**63
        return (self.global_rank + shared) / self.trainer.world_size

    def drop_class(self, batch: Batch, draws: Joined) -> Tensor | None:
        """What the net is told in training: `condition`, of which some is dropped; None for an unconditional model."""
        class_label = self.condition(batch)
        if class_label is not None and self.conditions:
            return with_dropout(class_label, self._class_dropout, draws.uniform)
        if class_label is None:
            return None
        return with_class_dropout(class_label, self.num_classes, self._class_dropout, draws.uniform)

    def means(self, losses: Losses) -> dict[str, Tensor]:
        """The mean loss of the items of all processes, and that of each quartile of time."""
        sums = sums_by_quartile(losses, self.denoiser.schedule.place)
        return quartile_means(self.trainer.strategy.reduce(sums, reduce_op="sum"), "train/loss")

    def where_worst(self, losses: Losses, index: int) -> str:
        return f" in quartile {NAMES[int(quartile_index(self.denoiser.schedule.place(losses.t[index : index + 1])))]}"

    def after_step(self) -> None:
        """Passes the losses of all processes to adaptive times, except those of a step that was left out."""
        if self.objective.times.adaptive:
            # A float if a subclass clips without the guard.
            kept = torch.as_tensor(self.progress.gradient_norm, device=self.device).isfinite()
            for losses in self.train_log.current:
                seen = losses.t, losses.value.where(kept, nan)
                self.objective.times.observe(*(gathered(x, self.trainer.world_size) for x in seen))
