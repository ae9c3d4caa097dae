"""Lightning's progress bar, counting steps of the optimizer."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar


class StepProgress(TQDMProgressBar):
    """Shows ``step/max_steps``: Lightning's own counts calls of its loop, of which one may hold many steps."""

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        bar = self.train_progress_bar
        bar.reset(self.trainer.max_steps)
        bar.initial = self.trainer.global_step
        bar.set_description("training")
        self._show()

    def on_train_epoch_start(self, *args: Any) -> None:
        """Nothing: the run is one epoch, and one that is resumed never begins it."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.refresh_rate == 0 or trainer.global_step >= trainer.max_steps:
            self._show()
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def _show(self) -> None:
        self.train_progress_bar.n = self.trainer.global_step
        self.train_progress_bar.refresh()
