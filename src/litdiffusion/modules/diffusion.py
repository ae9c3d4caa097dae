"""The training of a denoiser, as Lightning hooks."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from litdiffusion.clock import Clock
from litdiffusion.csv_log import rows_written
from litdiffusion.denoisers import ClippedDenoiser, Denoiser, OptimalOutput
from litdiffusion.errors import UserError
from litdiffusion.loggers import log_metrics
from litdiffusion.modules.counters import count_calls
from litdiffusion.modules.ema import EMA
from litdiffusion.modules.health import Health, diagnosis
from litdiffusion.modules.interrupts import Interrupts
from litdiffusion.modules.labels import hidden, split
from litdiffusion.modules.lr import Factor
from litdiffusion.modules.quartiles import quartile_means, quartile_sums
from litdiffusion.modules.throughput import Throughput
from litdiffusion.objectives import DenoisingObjective, Losses
from litdiffusion.samplers import Sampler
from litdiffusion.seeding import fold_seed, seed_generators
from litdiffusion.types import Batch, seeded_noise


class DiffusionModule(L.LightningModule):
    """Trains ``denoiser`` on ``objective``; validates, samples and reports with the averaged weights.

    Args:
        denoiser: what is trained.
        objective: the loss of a batch.
        sampler: draws from the trained denoiser, for the callbacks and scripts.
        codec: between data and the space that the diffusion runs in.
        shape: of one sample in model space.
        optimizer: parameters -> optimizer.
        lr_schedule: total number of steps -> factor of the learning rate per step.
        gradient_clip: largest norm of the gradient, or None.
        log_every: steps between rows of the log.
        ema_decay: of the weight average; 0 keeps the average equal to the weights.
        seed: with the step and the rank it determines every random number of a training step.
        clip: range that samples' x_0 is clamped to while sampling, or None.
        classes: K, that the net is told; 0: labels are not used.
        label_dropout: share of training items whose class is hidden, so that the net learns p(x) too.
        optimum: the data's exact denoiser where it is known: its loss is the least that can be reached.
        skip_nonfinite: how many steps without a finite gradient are skipped before the run stops.
        record: plain values stored in every checkpoint, enough to rebuild the denoiser and sampler from it.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: DenoisingObjective,
        sampler: Sampler,
        codec: nn.Module,
        shape: tuple[int, ...],
        optimizer: Callable[[Any], torch.optim.Optimizer],
        lr_schedule: Callable[[int], Factor],
        gradient_clip: float | None = 1.0,
        log_every: int = 50,
        ema_decay: float = 0.999,
        seed: int = 0,
        clip: tuple[float, float] | None = None,
        classes: int = 0,
        label_dropout: float = 0.1,
        optimum: nn.Module | None = None,
        skip_nonfinite: int = 0,
        record: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False  # so that one call can take many steps, see training_step
        self.denoiser = denoiser
        self.ema = EMA(denoiser, ema_decay)
        self.codec = codec
        self.objective = objective
        self.sampler = sampler
        self.shape = shape
        self.seed = seed
        self.classes = classes
        self.clock = Clock()
        self.interrupts = Interrupts()
        self.health = Health(skip_nonfinite)
        self.whole = True
        self.record = record or {}
        self._optimizer = optimizer
        self._lr_schedule = lr_schedule
        self._gradient_clip = gradient_clip
        self._log_every = log_every
        self._clip = clip
        self._label_dropout = label_dropout
        # In a list: the truth is nothing that is trained, moved or saved.
        self._optimum = [] if optimum is None else [OptimalOutput(optimum, denoiser.parameterization)]
        self._recent: list[Losses] = []
        self._current: list[Losses] = []
        self._scaled = self._plain = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self._weights = list(self.denoiser.parameters())
        optimizer = self._optimizer(self._weights)
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._factor = self._lr_schedule(self.trainer.max_steps)
        return optimizer

    def on_train_start(self) -> None:
        self.clock.start()
        self._recent = [Losses(*(None if x is None else x.to(self.device) for x in losses)) for losses in self._recent]
        self._throughput = Throughput(self.clock, self.global_step)
        # A scaled loss (16-mixed) skips steps with infinite gradients as a matter of course.
        self._scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        # One process and no scale: a step then needs none of Lightning's hooks, which cost a tenth of a toy's.
        self._plain = self.trainer.world_size == 1 and not self._scaled
        self.health.check_rate(self._rates, self._factor(self.global_step), self.global_step, self.trainer.max_steps)
        self.interrupts.shared = self.trainer.world_size > 1
        self.interrupts.install()
        self.clock.enter("data")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.clock.leave()

    def on_train_batch_end(self, outputs: None, batch: Batch, batch_idx: int) -> None:
        self.clock.enter("data")  # until the next batch is there, but for what callbacks take for themselves

    def on_train_end(self) -> None:
        self.clock.leave()
        self.clock.stop()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """As many steps of the optimizer as the batch holds: a small net's step costs less than Lightning's loop."""
        with self.interrupts.held(self._agree):
            self._steps(batch)

    def _steps(self, batch: Batch) -> None:
        data = self.trainer.datamodule
        with self.clock("step"):
            for part in split(batch, data.batch_size * data.accumulate):
                self._step(split(part, data.batch_size))
        last = self.global_step >= self.trainer.max_steps
        if last or self.global_step % self._log_every == 0:
            self._log_training()
        if last:
            self.trainer.should_stop = True  # makes Lightning validate, and save, the last weights too

    def _step(self, batches: Sequence[Batch]) -> None:
        """One step of the optimizer; its random numbers are a function of (seed, step, batch, rank) alone."""
        step, optimizer, skipped = self.global_step, self.optimizers(), self.health.skipped
        self._current = []
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self._factor(step)
        for index, batch in enumerate(batches):
            seed_generators(self.device, fold_seed(self.seed, step, index, self.global_rank))
            cond = hidden(batch.label, self.classes, self._label_dropout) if self.classes else None
            x_0 = self.codec.encode(batch.data)
            losses = self.objective(self.denoiser, x_0, cond, offset=self._offset(step, index))
            self._backward(losses.mean(), len(batches))
            self._current.append(losses._replace(error=losses.error.detach(), extra=_detached(losses.extra)))
        self._update(optimizer)
        if self.health.skipped == skipped:
            self._recent += self._current
            if self.objective.times.adaptive:
                self._observe(self._current)
        optimizer.zero_grad()
        self.ema.update(self.denoiser, step)
        self.whole = True

    def _agree(self, stop: bool) -> bool:
        """Whether any process was told to stop: all of them then end at the same step."""
        return stop if self.trainer.world_size == 1 else self.trainer.strategy.reduce_boolean_decision(stop, all=False)

    def _observe(self, recent: list[Losses]) -> None:
        """After the update, which refuses what is not finite: the times must not learn from it either."""
        for losses in recent:
            self.objective.times.observe(*(self.all_gather(x).flatten() for x in (losses.t, losses.weighted)))

    def _offset(self, step: int, index: int) -> float:
        """Of this process's times: those of all processes together cover the law evenly."""
        shared = fold_seed(self.seed, step, index) / 2**63
        return (self.global_rank + shared) / self.trainer.world_size

    def _backward(self, loss: Tensor, batches: int) -> None:
        loss = loss / batches if batches > 1 else loss
        loss.backward() if self._plain else self.manual_backward(loss)

    def _update(self, optimizer: LightningOptimizer) -> None:
        if not self._plain:
            optimizer.step()  # calls on_before_optimizer_step
            return
        self.on_before_optimizer_step(optimizer.optimizer)
        optimizer._on_before_step()  # these two count the step
        optimizer.optimizer.step()
        optimizer._on_after_step()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuses or skips a gradient that is not finite while the weights are still good, else limits its norm.

        A loss that is not finite shows here too, and on every process alike: gradients are already summed.
        """
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        self._gradient_norm = nn.utils.get_total_norm(gradients)
        if not self._scaled and not torch.isfinite(self._gradient_norm):
            where = diagnosis(self.denoiser.named_parameters(), self._current, self.denoiser.schedule)
            self.health.skip(self.global_step, where)
            for weight in self._weights:
                weight.grad = None  # without one an optimizer leaves a weight and its moments as they are
        elif self._gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(self._weights, self._gradient_clip, self._gradient_norm)
        self.whole = False  # until the average has followed: no checkpoint in between

    def on_validation_start(self) -> None:
        self.clock.enter("validation")

    def on_validation_end(self) -> None:
        self.clock.leave()

    def on_validation_epoch_start(self) -> None:
        self._validated, self._best = torch.zeros(2, 2, 4, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        x_0, cond = self.codec.encode(batch.data), self.condition(batch)
        noise = seeded_noise(fold_seed(batch_idx, self.global_rank))
        self._validated += self._by_quartile(self.objective(self.ema.model, x_0, cond, noise, offset=0.5))
        if self._optimum and not self.denoiser.learned_variance:
            noise = seeded_noise(fold_seed(batch_idx, self.global_rank))  # the same again
            self._best += self._by_quartile(self.objective(*self._optimum, x_0, None, noise, offset=0.5))

    def on_validation_epoch_end(self) -> None:
        sums = self.trainer.strategy.reduce(self._validated, reduce_op="sum")
        values = quartile_means(sums, "val/loss")
        if self._optimum and not self.denoiser.learned_variance:
            best = self.trainer.strategy.reduce(self._best, reduce_op="sum")
            values |= quartile_means(best, "val/best_loss")
        self.log_dict(values, logger=False)
        log_metrics(self.trainer, values)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["litdiffusion"] = self.record
        recent = self._joined() if self._recent else None
        progress = {"rows": rows_written(self.trainer), "recent": None if recent is None else list(recent)}
        checkpoint["progress"] = progress | self.health.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the unfinished row of the log, and sets Lightning's counters to what they are at this step."""
        progress = checkpoint.get("progress")
        if progress is not None:
            self._recent = [] if progress["recent"] is None else [Losses(*progress["recent"])]
            self.health.load_state_dict(progress)
        if "loops" in checkpoint and self._trainer is not None:
            count_calls(
                checkpoint["loops"]["fit_loop"], checkpoint["global_step"] // self.trainer.datamodule.inner_steps
            )

    def condition(self, batch: Batch, count: int | None = None) -> Tensor | None:
        """What the net is told of the first ``count`` items, or all: their classes; None of an unconditional model."""
        return batch.label[:count].to(self.device) if self.classes else None

    def sampling_denoiser(self, weights: str = "ema") -> nn.Module:
        """The denoiser to sample from: the averaged ("ema") or the current ("raw") weights, clipped where asked."""
        choices = {"ema": self.ema.model, "raw": self.denoiser}
        if weights not in choices:
            raise UserError(f"weights must be ema or raw, got {weights!r}")
        return choices[weights] if self._clip is None else ClippedDenoiser(choices[weights], *self._clip)

    @property
    def exact_denoiser(self) -> nn.Module | None:
        """The truth, where it is known."""
        return self._optimum[0].denoiser if self._optimum else None

    def _by_quartile(self, losses: Losses) -> Tensor:
        return quartile_sums(self.denoiser.schedule.place(losses.t), losses.weighted, losses.importance)

    def _log_training(self) -> None:
        """The mean since the last row: logging every step would cost more than a small net's step itself."""
        values = quartile_means(self._by_quartile(self._joined()), "train/loss") if self._recent else {}
        self._recent.clear()
        if values:
            self.log("train/loss", values["train/loss"], prog_bar=True, logger=False)
        if self.health.skipped:
            values["train/skipped_steps"] = self.health.skipped
        self.health.check_rate(self._rates, self._factor(self.global_step), self.global_step, self.trainer.max_steps)
        values["train/learning_rate"] = self.optimizers().param_groups[0]["lr"]
        values["train/gradient_norm"] = self._gradient_norm
        seen = self.trainer.datamodule
        each = seen.batch_size * seen.accumulate * self.trainer.world_size
        log_metrics(self.trainer, values | self._throughput.row(self.global_step, each))

    def _joined(self) -> Losses:
        """The losses of the steps since the last row, as those of one batch."""
        fields = zip(*self._recent, strict=True)
        return Losses(*(None if field[0] is None else torch.cat(field) for field in fields))


def _detached(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach()
