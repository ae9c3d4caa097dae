"""The last weights are validated, wherever the interval ends."""

from typing import Any

import lightning as L

from litdiffusion.callbacks.last_checkpoint import is_last_batch


class FinalValidation(L.Callback):
    """Validates once more when training ends by its number of steps or epochs, between two validations.

    Lightning validates before it stops early, so it is asked to stop where it would stop anyway.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if is_last_batch(trainer, batch_idx):
            trainer.should_stop = True
