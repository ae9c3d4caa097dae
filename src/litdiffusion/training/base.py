"""The base class of what is trained: Lightning's hooks for optimizer, average, guard, log and checkpoints."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, Self

import torch
from torch import Tensor, nn

from litdiffusion.data.augment import Augment
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.seeding import fold_seed, seed_generators
from litdiffusion.errors import UserError
from litdiffusion.runs.dashboards import log_metrics
from litdiffusion.runs.log import sync_rows
from litdiffusion.training.clock import Clock
from litdiffusion.training.ema import EMA
from litdiffusion.training.gradient import GuardedGradient
from litdiffusion.training.guard import Health
from litdiffusion.training.joined import Joined, place_of
from litdiffusion.training.late import LateChecks
from litdiffusion.training.position import Position, Progress, rewind
from litdiffusion.training.settings import Made, settings_of, take_settings, take_settings_of_trainer
from litdiffusion.training.sharding import is_sharded, make_plain, shard
from litdiffusion.training.train_log import LossesOf, TrainLog

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
MakeSchedule = Callable[[torch.optim.Optimizer, float], Any]


class TrainingModule(GuardedGradient, Generic[LossesOf]):
    """Trains one network by automatic optimisation; every random number of a step is a function of the seed and step.

    A subclass sets ``ema``, ``shape`` and ``description``, and implements `trained`, ``training_step``, `means` and
    `where_worst`.

    Args:
        losses: class of the losses of a batch.
        optimizer: function network -> optimizer.
        lr_schedule: see `DiffusionModule`.
        seed, augment, skip_nonfinite: see `DiffusionModule`.
    """

    ema: EMA
    shape: tuple[int, ...]
    """Shape of one item in the space that the network works in."""
    description: dict[str, Any]
    class_names: list[str]
    conditions: list[dict[str, Any]]

    def __init__(
        self,
        losses: type[LossesOf],
        optimizer: MakeOptimizer,
        lr_schedule: MakeSchedule | None = None,
        seed: int = 0,
        augment: Augment | None = None,
        skip_nonfinite: int = 0,
    ):
        super().__init__()
        self.seed, self.augment = seed, augment
        self.clock = Clock()
        self.health, self.late = Health(skip_nonfinite), LateChecks()
        self.train_log = TrainLog(self.clock, losses)
        self.progress = Progress()
        self._optimizer, self._lr_schedule = optimizer, lr_schedule
        self._lr: float | None = None
        self._is_set_up = False
        self._settings: dict[str, Any] | None = None
        self._restored: dict[str, Any] | None = None

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The network whose weights are trained, of which ``ema`` is the average."""

    @abstractmethod
    def means(self, losses: LossesOf) -> dict[str, Tensor]:
        """The values of losses (B,) for the log, ``train/loss`` among them."""

    def after_step(self) -> None:
        """Called after each optimizer step and the update of the average."""

    # Training

    def configure_model(self) -> None:
        """Shards the net under FSDP; nothing else, so a strategy that makes the weights here has none to make."""
        if is_sharded(self.trainer):
            shard(self)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = made = self._make_optimizer()
        typed = self.description.get("config", {}).get("lr_schedule")
        self._settings = settings_of(made, self.trainer.estimated_stepping_batches, typed)
        self._take_settings()
        return optimizer if schedule is None else {"optimizer": optimizer, "lr_scheduler": schedule}

    def _make_optimizer(self) -> Made:
        optimizer = self._optimizer(self.trained)
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

    def seed_step(self, batch_idx: int) -> Joined:
        """Makes every random number of a batch a function of (seed, step, micro-batch), and of the item or the rank.

        Returns the draws of items, which do not depend on the number of processes. What a net draws itself, e.g. for
        its dropout, depends on the rank.
        """
        seed_generators(self.device, self._seed_of_step(batch_idx, self.global_rank))
        if self.trainer.world_size == 1:
            return Joined()
        return place_of(self, torch.Generator(self.device).manual_seed(self._seed_of_step(batch_idx, 0)))

    def augmented(self, batch: Batch, batch_idx: int) -> Batch:
        """The batch with its images randomly changed: a function of (seed, step, micro-batch) and of the item."""
        if self.augment is None:
            return batch
        if batch.data.ndim != 4:
            raise UserError(f"augment takes images (B, C, H, W), not items {tuple(batch.data.shape[1:])}; leave it out")
        world, position = self.trainer.world_size, (*self._step_and_micro_batch(batch_idx), 0)
        changed = self.augment(batch.data, self.seed, *position, rank=self.global_rank, world=world)
        return batch._replace(data=changed, latent=None)

    def _seed_of_step(self, batch_idx: int, rank: int) -> int:
        return self._seed_of("step", batch_idx, rank)

    def _seed_of(self, stream: str, batch_idx: int, *position: int) -> int:
        return fold_seed(self.seed, stream, *self._step_and_micro_batch(batch_idx), *position)

    def _step_and_micro_batch(self, batch_idx: int) -> tuple[int, int]:
        return self.global_step, batch_idx % self.trainer.accumulate_grad_batches

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Lightning's step, then the update of the average."""
        step = self.global_step
        self.progress.rate = optimizer.param_groups[0]["lr"]  # because the scheduler changes it after the step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.ema.update(self.trained, step)
        self.after_step()
        self.train_log.end_step()
        loop = self.trainer.fit_loop
        last = loop.epoch_loop.batch_progress.is_last_batch or batch_idx + 1 == self.trainer.num_training_batches
        self.progress.position = Position(step + 1, epoch, batch_idx + 1, loop.total_batch_idx + 1, last)
        self.progress.updating = False

    @property
    def stepped(self) -> bool:
        """Whether the batch that has just ended led to an optimizer step."""
        return self.progress.position.total == self.trainer.fit_loop.total_batch_idx + 1

    def setup(self, stage: str) -> None:
        self._is_set_up = True
        if stage == "fit":
            self._settings = self._restored = None

    def on_validation_start(self) -> None:
        self.late.flush()
        self.clock.enter("validation")

    def on_validation_end(self) -> None:
        self.clock.leave()

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
        self.late.flush()
        self.clock.leave()
        self.clock.stop()

    def _log_training(self) -> None:
        """Writes the row straight to the loggers: ten values by ``self.log`` cost as much as ten steps of a toy."""
        self.late.flush()
        row = self.train_log.row(self.means, self.trainer.world_size)
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
        self.late.flush()
        if is_sharded(self.trainer):
            make_plain(checkpoint["state_dict"])
        checkpoint["litdiffusion"] = self.description
        checkpoint["progress"] = {
            "rows": sync_rows(self.trainer),
            "position": list(self.progress.position),
            "finished": self.progress.finished,
            "settings": self._settings,
            **self.train_log.state_dict(self.trainer.world_size),
            **self.health.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores losses that are not logged yet; sets Lightning's counters, and the settings of this config."""
        progress = checkpoint.get("progress")
        if progress is None:
            return
        self.train_log.load_state_dict(progress, self.device, place_of(self))
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
