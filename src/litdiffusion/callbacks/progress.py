"""Lightning's progress bar, counting steps of the optimizer."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar


class StepProgress(TQDMProgressBar):
    """Shows ``step/max_steps``: Lightning's own counts calls of its loop, of which one may hold many steps."""

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.reset(trainer.max_steps)
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.set_description("training")
        self._show(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        done = trainer.global_step
        if done % self.refresh_rate == 0 or done >= trainer.max_steps:
            self._show(trainer)
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))

    def _show(self, trainer: L.Trainer) -> None:
        self.train_progress_bar.n = trainer.global_step
        self.train_progress_bar.refresh()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
