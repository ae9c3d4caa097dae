"""Lightning's progress bar over the steps of the whole run."""

from contextlib import suppress
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar


class StepProgress(TQDMProgressBar):
    """Shows ``step/max_steps`` if the run has ``max_steps``, because a toy's epochs are too short for a bar each.

    A run with ``max_epochs`` alone has Lightning's bar, one per epoch.
    """

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        if self._counts_steps:
            bar = self.train_progress_bar
            bar.reset(self.trainer.max_steps)
            bar.n = bar.initial = self.trainer.global_step  # at once, since the rate shown is (n - initial) / elapsed
            bar.set_description("training")

    def on_train_epoch_start(self, *args: Any) -> None:
        if not self._counts_steps:
            super().on_train_epoch_start(*args)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if not self._counts_steps or self.is_disabled:
            super().on_train_batch_end(trainer, pl_module, *args)
        elif trainer.global_step % self.refresh_rate == 0 or trainer.global_step >= trainer.max_steps:
            self._show()
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))

    def on_exception(self, *args: Any) -> None:
        """Ends the bar, so that the error gets a line of its own."""
        with suppress(TypeError):  # there is no bar yet
            self.train_progress_bar.close()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    @property
    def _counts_steps(self) -> bool:
        return self.trainer.max_steps > 0

    def _show(self) -> None:
        self.train_progress_bar.n = self.trainer.global_step
        self.train_progress_bar.refresh()
