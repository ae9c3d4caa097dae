"""This project: Lightning's Trainer on the parts that ``python train.py`` takes by default."""

from tempfile import TemporaryDirectory

import lightning as L

from litdiffusion.callbacks.pictures import limited_sampler
from litdiffusion.diffusion.levels import seeded_noise
from others.case import Case, experiment
from others.rival import OnStep, Rival, Settings, Trained, in_blocks


class _AfterStep(L.Callback):
    def __init__(self, on_step: OnStep):
        self.on_step = on_step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self.on_step()


def train(case: Case, steps: int, settings: Settings, on_step: OnStep) -> Trained:
    with TemporaryDirectory() as folder:
        built = experiment(case.overrides, steps, folder)
        built.trainer.callbacks.append(_AfterStep(on_step))
        built.trainer.fit(built.module, built.data)
    module = built.module
    sampler = limited_sampler(module, settings.calls)
    draws, noise = module.draws(sampler), seeded_noise(case.seed)
    name = f"{type(sampler).__name__}, {sampler.calls(module.denoiser.schedule)} calls"
    size = 100 if case.is_image else 10_000
    return Trained(lambda n: in_blocks(n, size, lambda k: draws.states(k, noise)[-1].x), name)


def forces(case: Case) -> str:
    return "the defaults of train.py, without classes, pictures, checkpoints and validation"


RIVAL = Rival("litdiffusion", (), train, forces)
