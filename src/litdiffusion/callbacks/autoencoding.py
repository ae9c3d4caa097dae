"""Pictures and final numbers of an autoencoder: reconstructions beside the data, and a walk through the latents."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from litdiffusion.callbacks.pictures import display_range, evaluating, facts_for, save_picture
from litdiffusion.data.arrays import bytes_to_floats
from litdiffusion.errors import UserError
from litdiffusion.plots import image_grid, pairs_picture
from litdiffusion.runs.dashboards import log_metrics
from litdiffusion.training import AutoencoderModule

CHUNK = 256
"""How many test items are reconstructed at once."""


class Reconstructions(L.Callback):
    """Shows validation images, and below each one its reconstruction by the averaged weights, at every validation.

    Args:
        run_dir: the run's folder.
        images: number of images.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(self, run_dir: Path, images: int = 30, facts: Any = None):
        if images < 1:
            raise UserError(f"callbacks.reconstructions.images must be at least 1, got {images}")
        self.run_dir, self.images, self.facts = run_dir, images, facts

    def on_validation_end(self, trainer: L.Trainer, pl_module: AutoencoderModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        facts, step = facts_for(self, trainer), trainer.global_step
        with pl_module.clock("drawing"), evaluating(pl_module), torch.no_grad():
            x = facts.reference(self.images)
            decoded = pl_module.reconstructed(x).cpu()
            title = f"data, and below it its reconstruction after {step} steps"
            picture = pairs_picture(x, decoded, title, display_range(facts))
            save_picture(trainer, self.run_dir, "reconstructions", picture, f"reconstructions_step_{step:06d}.png")


class LatentWalk(L.Callback):
    """Shows images on straight lines between the latents of two validation images, one line for each row, at the end.

    The latent of column u is ``(1 - u) m(x) + u m(y)`` with the mean latents m; both ends are reconstructions.

    Args:
        run_dir: the run's folder.
        rows: number of pairs.
        columns: images of a row.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(self, run_dir: Path, rows: int = 8, columns: int = 11, facts: Any = None):
        if rows < 1 or columns < 2:
            raise UserError(f"callbacks.latent_walk needs at least 1 row and 2 columns, got {rows} and {columns}")
        self.run_dir, self.rows, self.columns, self.facts = run_dir, rows, columns, facts

    def on_train_end(self, trainer: L.Trainer, pl_module: AutoencoderModule) -> None:
        if not trainer.is_global_zero:
            return
        facts = facts_for(self, trainer)
        with pl_module.clock("drawing"), evaluating(pl_module), torch.no_grad():
            images = self.walk(pl_module, facts.reference(2 * self.rows).to(pl_module.device))
            picture = image_grid(images.float().cpu(), self.columns, display_range(facts))
            save_picture(trainer, self.run_dir, "latent_walk", picture, "latent_walk.png")

    def walk(self, module: AutoencoderModule, ends: Tensor) -> Tensor:
        """The images (rows * columns, C, H, W) between the pairs 0 and 1, 2 and 3, ... of ``ends``."""
        net, u = module.ema.model, torch.linspace(0, 1, self.columns, device=ends.device).view(1, -1, 1, 1, 1)
        start, end = (net.encode(part).chunk(2, dim=1)[0].unsqueeze(1) for part in (ends[0::2], ends[1::2]))
        return net.decode(((1 - u) * start + u * end).flatten(0, 1))


class FinalReconstruction(L.Callback):
    """Measures the averaged autoencoder on the official test split at the end, or on validation items without one.

    ``test/reconstruction`` is the mean square error of a coordinate, ``test/latent_std`` the deviation of the latents'
    means over items and coordinates. Both stand in the log and in ``run.json``.

    Args:
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(self, facts: Any = None):
        self.facts = facts
        self._summary = ""

    def on_train_end(self, trainer: L.Trainer, pl_module: AutoencoderModule) -> None:
        if not trainer.is_global_zero:
            return
        items = facts_for(self, trainer).test().data
        net, device = pl_module.ema.model, pl_module.device
        errors, latents = [], []
        with pl_module.clock("testing"), evaluating(pl_module), torch.no_grad():
            for index in torch.arange(len(items)).split(CHUNK):
                x = bytes_to_floats(items.index_select(0, index)).to(device)
                z = net.encode(x).chunk(2, dim=1)[0]
                errors.append((net.decode(z) - x).double().square().flatten(1).mean(1).cpu())
                latents.append(z.float().cpu())
        error, latent = torch.cat(errors), torch.cat(latents)
        values = {"test/reconstruction": error.mean().item(), "test/latent_std": latent.std(correction=0).item()}
        log_metrics(trainer, values)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        spread = error.std().item() / len(error) ** 0.5
        self._summary = (
            f"reconstruction of {len(error)} test items: mean square error {values['test/reconstruction']:.5f} ± "
            f"{spread:.5f}; latents of {' x '.join(map(str, latent.shape[1:]))}, deviation "
            f"{values['test/latent_std']:.3f}"
        )

    def summary(self) -> str:
        """One line for the end of a run."""
        return self._summary
