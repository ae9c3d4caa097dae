"""denoising-diffusion-pytorch: its ``Trainer`` for images and its ``Trainer1D`` for sequences, as its README has them.

Timesteps, learning rate, decay of the average and the sampler are the README's. Changed are what a CPU without half
precision cannot do (``amp``), what costs hours (``calculate_fid``), the mirror images, which are no digits, and the
pictures between the steps. One batch is one step (the README sums up two).
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from torch import Tensor, nn

from litdiffusion.measure.features.extractor import to_bytes
from others.case import Case
from others.rival import OnStep, Rival, Settings, Trained, in_blocks

TIMESTEPS, RATE, DECAY, DDIM_STEPS = 1000, 8e-5, 0.995, 250
SPARE = 8
"""Batches in the folder beyond those that are trained on: what the loader's processes read ahead."""


class DiffusionNet(nn.Module):
    """The net as ``GaussianDiffusion`` calls it; a point of d coordinates is a sequence of length 1 with d channels."""

    self_condition = False

    def __init__(self, case: Case):
        super().__init__()
        self.net, self.shape = case.net(), case.shape
        self.channels = self.out_dim = case.shape[0]

    def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        return self.net(x.view(-1, *self.shape), t / (TIMESTEPS - 1)).view_as(x)


def train(case: Case, steps: int, settings: Settings, on_step: OnStep) -> Trained:
    with TemporaryDirectory() as folder:
        make = _image_trainer if case.is_image else _point_trainer
        options = {
            "train_batch_size": case.batch,
            "train_lr": settings.lr or RATE,
            "train_num_steps": steps,
            "ema_decay": DECAY,
            "save_and_sample_every": steps + 1,
            "results_folder": folder,
        }
        trainer, sampler = make(case, settings, Path(folder) / "images", options)
        trainer.opt.optimizer.register_step_post_hook(lambda *_: on_step())
        trainer.train()
    return Trained(_drawer(case, trainer.ema.ema_model.eval()), sampler)


def _image_trainer(case: Case, settings: Settings, folder: Path, options: dict[str, Any]) -> tuple[Any, str]:
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer

    calls = settings.limited(DDIM_STEPS)
    size = case.shape[1:]
    diffusion = GaussianDiffusion(DiffusionNet(case), image_size=size, timesteps=TIMESTEPS, sampling_timesteps=calls)
    write_images(case.x[: max(100, (options["train_num_steps"] + SPARE) * case.batch)], folder)
    trainer = Trainer(diffusion, str(folder), augment_horizontal_flip=False, calculate_fid=False, **options)
    return trainer, f"its DDIM, {calls} calls"


def _point_trainer(case: Case, settings: Settings, folder: Path, options: dict[str, Any]) -> tuple[Any, str]:
    from denoising_diffusion_pytorch import Dataset1D, GaussianDiffusion1D, Trainer1D

    calls = settings.limited(TIMESTEPS)
    diffusion = GaussianDiffusion1D(
        DiffusionNet(case), seq_length=1, timesteps=TIMESTEPS, objective="pred_v", sampling_timesteps=calls
    )
    trainer = Trainer1D(diffusion, dataset=Dataset1D(case.to_unit(case.x)[..., None]), **options)
    return trainer, f"its {'DDPM' if calls == TIMESTEPS else 'DDIM'}, {calls} calls"


def _drawer(case: Case, model: Any) -> Callable[[int], Tensor]:
    size = 100 if case.is_image else 10_000

    def draw(n: int) -> Tensor:
        unit = in_blocks(n, size, lambda k: model.sample(batch_size=k).clone())
        return case.from_unit(unit.view(n, *case.shape))

    return draw


def write_images(x: Tensor, folder: Path) -> None:
    """Writes images (n, C, H, W) in [-1, 1] as PNG files."""
    folder.mkdir()
    for index, image in enumerate(to_bytes(x)):
        pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(folder / f"{index:06d}.png")


def forces(case: Case) -> str:
    if case.is_image:
        return "a folder of PNG files, a process per core that reads them, at least 100 images and batches of 16"
    return "sequences (2 channels of length 1), scaled to [0, 1] and clipped to it, a process per core that reads them"


RIVAL = Rival("denoising-diffusion-pytorch", ("denoising-diffusion-pytorch",), train, forces)
