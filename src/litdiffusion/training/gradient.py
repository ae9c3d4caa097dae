"""The gradient of a step: checked before it changes the weights, then clipped."""

from collections.abc import Sequence
from functools import partial

import lightning as L
import torch
from torch import Tensor, nn

from litdiffusion.training.guard import Health, diagnosis
from litdiffusion.training.late import LateChecks, is_read_at_once
from litdiffusion.training.position import Progress
from litdiffusion.training.sharding import is_sharded, total_norm
from litdiffusion.training.train_log import LossesOf, TrainLog


class GuardedGradient(L.LightningModule):
    """The part of `TrainingModule` between the backward pass and the optimizer; the subclass sets these attributes."""

    health: Health
    late: LateChecks
    progress: Progress
    train_log: TrainLog
    trained: nn.Module

    def where_worst(self, losses: LossesOf, index: int) -> str:
        """What is known of the item with the worst loss, for the message about a non-finite step; may be empty."""
        return ""

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
        weights = [w for group in optimizer.param_groups for w in group["params"] if w.grad is not None]
        gradients = [weight.grad for weight in weights]
        norms = torch.stack(torch._foreach_norm(gradients)) if gradients else torch.zeros(0, device=self.device)
        norm = torch.linalg.vector_norm(norms)
        self.progress.gradient_norm = norm = total_norm(norm, self.trained) if is_sharded(self.trainer) else norm
        # With a scaled loss (16-mixed) the gradient scaler itself skips steps with infinite gradients.
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:
            self._guard(optimizer, weights, norms, ~norm.isfinite())
        if (gradient_clip_val or 0) > 0 and gradient_clip_algorithm in (None, "norm"):
            nn.utils.clip_grads_with_norm_(weights, gradient_clip_val, norm)  # Lightning would compute the norm again
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self.late.end_step()
        self.progress.updating = True

    def _guard(
        self, optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter], norms: Tensor, bad: Tensor
    ) -> None:
        skip = partial(self._skip_step, self.global_step, weights, norms, tuple(self.train_log.current))
        if leaves_out_on_device(optimizer) and not is_read_at_once(bad.device):
            optimizer.found_inf = bad.float()
            self.late.check(bad, skip)
        elif bad:
            skip()
            for weight in weights:
                weight.grad = None  # because an optimizer skips weights without a gradient

    def _skip_step(self, step: int, weights: Sequence[nn.Parameter], norms: Tensor, losses: Sequence[LossesOf]) -> None:
        names = {id(weight): name for name, weight in self.trained.named_parameters()}
        named = [names.get(id(weight), "a weight") for weight in weights]
        self.health.skip(step, diagnosis(named, norms, losses, self.where_worst))
        self.train_log.leave_out(losses)


def leaves_out_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer leaves out a step where its ``found_inf`` (0-dimensional) is 1, without asking the host.

    So do torch's fused optimizers, for the gradient scaler of `torch.amp`.
    """
    return getattr(optimizer, "_step_supports_amp_scaling", False)
