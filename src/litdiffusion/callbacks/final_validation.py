"""Validates the final weights, whatever the validation interval is."""

from typing import Any

import lightning as L

from litdiffusion.callbacks.last_checkpoint import is_last_batch


class FinalValidation(L.Callback):
    """Validates once more if ``max_steps`` or ``max_epochs`` ends training between two validations.

    Lightning validates before an early stop, so the callback requests a stop at the batch that is the last one anyway.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if is_last_batch(trainer, batch_idx):
            trainer.should_stop = True
