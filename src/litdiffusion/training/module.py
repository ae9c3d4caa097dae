"""Training of a denoiser, as Lightning hooks."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from litdiffusion.codecs import Codec, Identity
from litdiffusion.data.augment import Augment
from litdiffusion.data.base import as_batch
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import ClassifierFreeGuidance, Denoiser, ExactOutput
from litdiffusion.diffusion.objectives import DenoisingObjective, Losses
from litdiffusion.diffusion.samplers import Ancestral, Sampler
from litdiffusion.diffusion.seeding import fold_seed, seed_generators
from litdiffusion.errors import UserError
from litdiffusion.runs.dashboards import log_metrics
from litdiffusion.runs.log import sync_rows
from litdiffusion.training.class_labels import checked_class_names, with_class_dropout
from litdiffusion.training.clock import Clock
from litdiffusion.training.conditions import with_dropout
from litdiffusion.training.description import description_of
from litdiffusion.training.ema import EMA
from litdiffusion.training.evaluation import Evaluation
from litdiffusion.training.guard import Health, diagnosis
from litdiffusion.training.optimizers import NetAdamW
from litdiffusion.training.position import Position, Progress, rewind
from litdiffusion.training.settings import Made, settings_of, take_settings, take_settings_of_trainer
from litdiffusion.training.train_log import TrainLog

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
MakeSchedule = Callable[[torch.optim.Optimizer, float], Any]


class DiffusionModule(Evaluation):
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
        seed: determines, with the step, the batch and the rank, every random number of a training step.
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
        super().__init__()
        self.denoiser = denoiser
        self.ema = EMA(denoiser, ema_decay)
        self.codec = Identity() if codec is None else codec
        self.objective = objective
        self.sampler = Ancestral() if sampler is None else sampler
        objective.check(denoiser)
        self.sampler.check(denoiser.schedule, denoiser.learned_variance)
        self.shape = tuple(shape)
        self.seed = seed
        self.num_classes, self.class_names = num_classes, checked_class_names(class_names, num_classes)
        self.conditions = [dict(scale) for scale in conditions]
        self.augment = augment
        parts = {"codec": self.codec, "sampler": self.sampler, "optimizer": optimizer, "lr_schedule": lr_schedule}
        parts |= {"ema_decay": ema_decay, "seed": seed, "class_dropout": class_dropout}
        parts |= {"guidance": guidance, "guide": guide}
        parts["skip_nonfinite"] = skip_nonfinite
        told = num_classes, self.conditions
        described = description or description_of(denoiser, objective, clip, self.shape, *told, parts)
        self.description = described | ({"class_names": self.class_names} if self.class_names else {})
        self.clock = Clock()
        self.health = Health(skip_nonfinite)
        self.train_log = TrainLog(self.clock)
        self.progress = Progress()
        self._optimizer, self._lr_schedule = optimizer, lr_schedule
        self._clip, self._class_dropout, self.guidance = clip, class_dropout, guidance
        self._guide = guide
        self._lr: float | None = None
        self._is_set_up = False
        self._settings: dict[str, Any] | None = None
        self._restored: dict[str, Any] | None = None
        # In a list, so that torch does not train, move or save it.
        self._exact_output = [] if exact_denoiser is None else [ExactOutput(exact_denoiser, denoiser.parameterization)]

    # Training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = as_batch(batch)
        self.seed_step(batch_idx)
        x_0 = self.encoded(self.augmented(batch, batch_idx), f"training batch {batch_idx}")
        losses = self.objective(self.denoiser, x_0, self.drop_class(batch), offset=self.time_offset(batch_idx))
        self.train_log.add(losses)
        return losses.mean()

    def configure_optimizers(self) -> Any:
        optimizer, schedule = made = self._make_optimizer()
        typed = self.description.get("config", {}).get("lr_schedule")
        self._settings = settings_of(made, self.trainer.estimated_stepping_batches, typed)
        self._take_settings()
        return optimizer if schedule is None else {"optimizer": optimizer, "lr_scheduler": schedule}

    def _make_optimizer(self) -> Made:
        optimizer = self._optimizer(self.denoiser)
        for group in optimizer.param_groups if self._lr is not None else ():
            group["lr"] = self._lr
        if self._lr_schedule is None:
            return optimizer, None
        schedule = self._lr_schedule(optimizer, self.trainer.estimated_stepping_batches)
        return optimizer, schedule if isinstance(schedule, Mapping) else {"scheduler": schedule, "interval": "step"}

    def _take_settings(self) -> None:
        """Puts the settings of this config into the checkpoint that is being restored, once both exist."""
        if self._restored is not None and self._settings is not None:
            take_settings(self._restored, self._make_optimizer, self._settings, self.progress.position)
            self._restored = None

    @property
    def lr(self) -> float | None:
        """Base learning rate that was set later, e.g. by Lightning's LearningRateFinder; else None."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = value
        for config in self.trainer.lr_scheduler_configs if self._is_set_up else ():
            if hasattr(config.scheduler, "base_lrs"):  # otherwise the scheduler restores the old rate
                config.scheduler.base_lrs = [value] * len(config.scheduler.base_lrs)

    def seed_step(self, batch_idx: int) -> None:
        """Makes every random number of a batch a function of (seed, step, micro-batch, rank)."""
        seed_generators(self.device, self._seed_of("step", batch_idx, self.global_rank))

    def augmented(self, batch: Batch, batch_idx: int) -> Batch:
        """The batch with its images randomly changed: a function of (seed, step, micro-batch, rank)."""
        if self.augment is None:
            return batch
        if batch.data.ndim != 4:
            raise UserError(f"augment takes images (B, C, H, W), not items {tuple(batch.data.shape[1:])}; leave it out")
        position = *self._step_and_micro_batch(batch_idx), self.global_rank
        return batch._replace(data=self.augment(batch.data, self.seed, *position))

    def time_offset(self, batch_idx: int) -> float:
        """Offset of this process's times; the times of all processes together cover their distribution evenly."""
        shared = self._seed_of("times", batch_idx) / 2**63
        return (self.global_rank + shared) / self.trainer.world_size

    def drop_class(self, batch: Batch) -> Tensor | None:
        """What the net is told in training: `condition`, of which some is dropped; None for an unconditional model."""
        class_label = self.condition(batch)
        if class_label is not None and self.conditions:
            return with_dropout(class_label, self._class_dropout)
        return None if class_label is None else with_class_dropout(class_label, self.num_classes, self._class_dropout)

    def _seed_of(self, stream: str, batch_idx: int, *position: int) -> int:
        return fold_seed(self.seed, stream, *self._step_and_micro_batch(batch_idx), *position)

    def _step_and_micro_batch(self, batch_idx: int) -> tuple[int, int]:
        return self.global_step, batch_idx % self.trainer.accumulate_grad_batches

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Skips or refuses a non-finite gradient before it changes the weights; clips a finite one.

        A non-finite loss is also found here, by every process alike, because gradients are already summed over
        processes.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.progress.gradient_norm = norm = nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
        # With a scaled loss (16-mixed) the gradient scaler itself skips steps with infinite gradients.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not scaled and not math.isfinite(norm):
            self._skip_step(weights)
        elif (gradient_clip_val or 0) > 0 and gradient_clip_algorithm in (None, "norm") and self._norm_is_local():
            nn.utils.clip_grads_with_norm_(weights, gradient_clip_val, norm)  # Lightning would compute the norm again
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self.progress.updating = True

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Lightning's step, then the update of the average and of adaptive times."""
        step, skipped = self.global_step, self.health.skipped
        self.progress.rate = optimizer.param_groups[0]["lr"]  # because the scheduler changes it after the step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.ema.update(self.denoiser, step)
        skipped_now = self.health.skipped > skipped
        if self.objective.times.adaptive and not skipped_now:
            self._adapt_times(self.train_log.current)
        self.train_log.end_step(skipped_now)
        loop = self.trainer.fit_loop
        last = loop.epoch_loop.batch_progress.is_last_batch or batch_idx + 1 == self.trainer.num_training_batches
        self.progress.position = Position(step + 1, epoch, batch_idx + 1, loop.total_batch_idx + 1, last)
        self.progress.updating = False

    @property
    def stepped(self) -> bool:
        """Whether the batch that has just ended led to an optimizer step."""
        return self.progress.position.total == self.trainer.fit_loop.total_batch_idx + 1

    def _norm_is_local(self) -> bool:
        """Whether this process can compute the gradient norm alone: FSDP's norm is a sum over processes."""
        return "fsdp" not in type(self.trainer.strategy).__name__.lower()

    def _skip_step(self, weights: list[Tensor]) -> None:
        reason = diagnosis(self.denoiser.named_parameters(), self.train_log.current, self.denoiser.schedule)
        self.health.skip(self.global_step, reason)
        for weight in weights:
            weight.grad = None  # because an optimizer skips weights without a gradient

    def _adapt_times(self, batches: list[Losses]) -> None:
        """Passes the losses of all processes to the adaptive times, after the update has refused non-finite ones."""
        for losses in batches:
            self.objective.times.observe(*(self.all_gather(x).flatten() for x in (losses.t, losses.value)))

    def setup(self, stage: str) -> None:
        self._is_set_up = True
        if stage == "fit":
            self._settings = self._restored = None

    # The log

    def on_train_start(self) -> None:
        self.progress.finished = False
        self.clock.start()
        self._check_rate()
        self.clock.enter("data")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.clock.leave()
        self.clock.enter("step")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.clock.leave()
        every = self.trainer.log_every_n_steps
        if self.stepped and every and (self.global_step % every == 0 or self.trainer.should_stop):
            self._log_training()
        self.clock.enter("data")  # until the next batch, without the sections of callbacks

    def on_train_epoch_end(self) -> None:
        """Moves ReduceLROnPlateau in the epoch in which a run resumed.

        Lightning leaves it out there, because no checkpoint holds the monitored metric. The metric exists if the rest
        of the epoch contains the validation.
        """
        numbers, epochs = self.trainer.callback_metrics, self.trainer.current_epoch + 1
        for config in self.trainer.lr_scheduler_configs if self.trainer.fit_loop.restarting else ():
            due = config.reduce_on_plateau and config.interval == "epoch" and epochs % config.frequency == 0
            if due and config.monitor in numbers:
                self.lr_scheduler_step(config.scheduler, numbers[config.monitor])

    def on_train_end(self) -> None:
        self.clock.leave()
        self.clock.stop()

    def _log_training(self) -> None:
        """Writes the row straight to the loggers: ten values by ``self.log`` cost as much as ten steps of a toy."""
        row = self.train_log.row(self.denoiser.schedule.place, self.trainer.world_size)
        if "train/loss" in row:  # for the progress bar and for callbacks
            self.log("train/loss", row["train/loss"], prog_bar=True, logger=False)
        if self.health.skipped:
            row["train/skipped_steps"] = float(self.health.skipped)
        row["train/learning_rate"] = self.progress.rate
        row["train/gradient_norm"] = self.progress.gradient_norm
        self._check_rate()
        log_metrics(self.trainer, row)

    def _check_rate(self) -> None:
        groups = self.trainer.optimizers[0].param_groups
        self.health.check_rate(groups, self.global_step, self.trainer.estimated_stepping_batches)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["litdiffusion"] = self.description
        checkpoint["progress"] = {
            "rows": sync_rows(self.trainer),
            "position": list(self.progress.position),
            "finished": self.progress.finished,
            "settings": self._settings,
            **self.train_log.state_dict(),
            **self.health.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores losses that are not logged yet; sets Lightning's counters, and the settings of this config."""
        progress = checkpoint.get("progress")
        if progress is None:
            return
        self.train_log.load_state_dict(progress, self.device)
        self.health.load_state_dict(progress)
        self.progress.position = Position(*progress["position"])
        if "loops" in checkpoint:
            rewind(checkpoint["loops"]["fit_loop"], self.progress.position, self.trainer.max_steps != -1)
            take_settings_of_trainer(checkpoint, self.trainer)
            self._restored = checkpoint
            self._take_settings()  # some strategies make the optimizer first, others restore first

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """The module of a checkpoint with all of its weights, as Lightning's method of this name.

        The parts are rebuilt from the config in the file, which may name only what `Pretrained` allows. Files are
        always read with ``weights_only=True``. There is no file of hyperparameters.

        Args:
            checkpoint_path: path of the file.
            map_location: device of the module, if it is one device or its name; else the CPU.
            hparams_file, weights_only: ignored.
            strict: whether the names of all weights must fit; None: they must.
            kwargs: ``trust``, as for `Pretrained`, and settings of the config that replace those in the file.

        Raises:
            UserError: a damaged or foreign file, or a config that names more than is allowed.
        """
        from litdiffusion.pretrained.restoring import restored_module  # here, because only this method builds a module

        device = map_location if isinstance(map_location, str | int | torch.device) else "cpu"
        return restored_module(checkpoint_path, kind=cls, strict=strict is not False, **kwargs).to(device)
