"""The kinds of runs that the lottery disturbs, as overrides of ``python train.py``."""

from dataclasses import dataclass
from pathlib import Path

QUICK = (
    *("trainer.accelerator=cpu", "trainer.max_steps=40", "trainer.val_check_interval=12", "save_every=5"),
    *("trainer.log_every_n_steps=4", "lr_schedule.warmup_steps=0", "threads=1"),
    *("schedule=cosine", "schedule.steps=20", "sampler.steps=5"),
    *("callbacks.progress_bar=null", "callbacks.field=null", "callbacks.live_likelihood=null"),
    *("callbacks.forward_process=null", "callbacks.final_samples.steps=5"),
)
"""A run of about a second that validates and saves often."""
TOY = (
    *("data=moons", "data.size=300", "data.val_size=100", "data.batch_size=25", "model.hidden=8"),
    *("callbacks.live_quality.samples=50", "callbacks.live_quality.steps=5", "callbacks.final_samples.points=50"),
    # Off because they depend on the clock, and a resumed run has another one.
    *("callbacks.live_quality.max_share=null", "callbacks.trajectory=null"),
)
PICTURES = (
    *("callbacks.trajectory.max_share=null", "callbacks.trajectory.points=50", "callbacks.trajectory.shown=2"),
    *("callbacks.trajectory.chains=1", "callbacks.trajectory.steps=2", "callbacks.final_samples.images=2"),
)
IMAGES = (
    *("model=unet", "model.base_channels=8", "model.depth=1", "metrics=none", "data.batch_size=8"),
    *("trainer.max_steps=18", "trainer.val_check_interval=6", "save_every=4", "conditional=true", *PICTURES),
)
BASES = {
    "toy": TOY,
    "conditional": (*IMAGES, "data=digits", "data.val_size=1700"),
    "streaming": (*IMAGES, "data=image_folder", "data.image_size=8", "data.channels=1", "data.val_size=16")
    + ("data.memory_limit_gb=0", "data.num_workers=2"),
    "two processes": (*TOY, "callbacks.live_quality=null", "trainer=ddp", "trainer.devices=2"),
    "compile": (*TOY, "compile=true", "metrics=none"),
}
WEIGHTS = {"toy": 56, "conditional": 14, "streaming": 12, "two processes": 14, "compile": 4}
"""How often each kind is drawn, in percent. ``compile`` is rare because each of its starts takes several seconds."""
EXTRAS = {
    "accumulate": ("trainer.accumulate_grad_batches=3",),
    "adaptive": ("times=loss_aware", "times.bins=4", "times.warmup=1"),
    "variance": ("objective=hybrid", "sampler.variance=learned"),
    "epochs": ("trainer.max_steps=-1", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "lr_schedule=constant")
    + ("trainer.val_check_interval=1.0",),
}
LIMIT_S = 180
"""Seconds after which an attempt counts as hanging."""


@dataclass(frozen=True)
class Feature:
    """A kind of run: a base and up to two extras."""

    base: str
    extras: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join((self.base, *self.extras))

    @property
    def processes(self) -> int:
        return 2 if self.base == "two processes" else 1

    def overrides(self, images: Path) -> tuple[str, ...]:
        """The overrides; ``images`` is the folder that a streaming run reads."""
        words = (*QUICK, *BASES[self.base], *(word for name in self.extras for word in EXTRAS[name]))
        words += (f"data.path={images}",) if self.base == "streaming" else ()
        return tuple({word.partition("=")[0]: word for word in words}.values())  # the last one of a key counts


def write_images(folder: Path) -> Path:
    """64 small digits as png files in ten folders, for the streaming runs; returns ``folder``."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(64):
        path = folder / str(digits.target[index]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15).astype("uint8")).save(path)
    return folder
