"""Two runs of one config: a whole one, and one that goes on from a checkpoint of the other."""

from pathlib import Path

import torch
from conftest import composed
from lightning.pytorch.callbacks import ModelCheckpoint

from litdiffusion.build import Experiment, Run, build


def whole_and_resumed(words: list[str], step: int, folder: Path) -> tuple[Experiment, Experiment]:
    """Trains both and asserts that their weights are equal bit for bit; checkpoints are ``folder/step_*.ckpt``."""

    def run(ckpt_path: str | None = None) -> Experiment:
        experiment = build(composed(*words), Run(folder / ("resumed" if ckpt_path else "whole")))
        named = {"every_n_train_steps": step, "save_top_k": -1, "auto_insert_metric_name": False}
        experiment.trainer.callbacks.append(ModelCheckpoint(folder, "step_{step}", **named))
        experiment.trainer.fit(experiment.module, experiment.data, ckpt_path=ckpt_path, weights_only=True)
        return experiment

    whole = run()
    torch.manual_seed(99)  # whatever state the process is in must not matter
    resumed = run(str(folder / f"step_{step}.ckpt"))
    assert resumed.trainer.global_step == whole.trainer.global_step > step
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    return whole, resumed
