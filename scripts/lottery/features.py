"""The kinds of runs that the lottery disturbs, as overrides of ``python train.py``."""

from dataclasses import dataclass
from pathlib import Path

QUICK = (
    *("trainer.accelerator=cpu", "trainer.max_steps=40", "trainer.val_check_interval=12", "save_every=5"),
    *("trainer.log_every_n_steps=4", "lr_schedule.warmup_steps=0", "threads=1"),
    *("schedule=cosine", "schedule.steps=20", "sampler.steps=5"),
    *("callbacks.progress_bar=null", "callbacks.field=null", "callbacks.live_likelihood=null"),
    "callbacks.forward_process=null",
)
"""A run of about a second that validates and saves often."""
TOY = (
    *("data=moons", "data.size=300", "data.val_size=100", "data.batch_size=25", "model.hidden=8", "metrics=none"),
    *("callbacks.live_quality=null", "callbacks.trajectory=null", "callbacks.final_samples=null"),
)
IMAGES = (
    *("data=image_folder", "data.image_size=8", "data.channels=1", "data.val_size=16", "data.batch_size=8"),
    *("model=unet", "model.channels=[8]", "model.blocks=1", "metrics=none", "callbacks.trajectory=null"),
    *("trainer.max_steps=12", "trainer.val_check_interval=4", "save_every=3", "trainer.log_every_n_steps=2"),
    *("conditional=true", "callbacks.final_samples.images=2"),
)
BASES = {
    "toy": TOY,
    "conditional": IMAGES,
    "streaming": (*IMAGES, "data.memory_limit_gb=0", "data.cache=null", "data.num_workers=2"),
    "mapped": (*IMAGES, "data.memory_limit_gb=0", "data.cache=decoded"),
    "two processes": (*TOY, "trainer=ddp", "trainer.devices=2"),
    "compile": (*TOY, "compile=true"),
}
WEIGHTS = {"toy": 50, "conditional": 14, "streaming": 10, "mapped": 8, "two processes": 14, "compile": 4}
"""How often each kind is drawn, in percent. ``compile`` is rare because each of its starts takes several seconds."""
EXTRAS = {
    "accumulate": ("trainer.accumulate_grad_batches=3",),
    "adaptive": ("times=loss_aware", "times.bins=4", "times.warmup=1"),
    "variance": ("objective=hybrid", "sampler.variance=learned"),
    "epochs": (
        *("trainer.max_steps=-1", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1"),
        *("trainer.val_check_interval=1.0", "lr_schedule=constant"),
    ),
    "measured": (
        *("metrics=vectors", "callbacks.live_quality.samples=50", "callbacks.live_quality.steps=5"),
        # No share of the time, because it depends on the clock, and a resumed run has another one.
        *("callbacks.live_quality.max_share=null", "callbacks.final_samples.points=50"),
    ),
    "pictured": (
        *("callbacks.trajectory.max_share=null", "callbacks.trajectory.points=50", "callbacks.trajectory.shown=2"),
        *("callbacks.trajectory.chains=1", "callbacks.trajectory.steps=2"),
    ),
}
OPTIONAL = {"live_quality": "measured", "final_samples": "measured", "trajectory": "pictured"}
"""Callbacks that a base leaves out, and the extra that puts them back."""
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
        words += (f"data.path={images}",) if self.draws_images else ()
        kept = {word.partition("=")[0]: word for word in words}  # the last one of a key counts
        for callback, extra in OPTIONAL.items():
            if extra in self.extras:
                kept.pop(f"callbacks.{callback}", None)
        return tuple(kept.values())

    @property
    def draws_images(self) -> bool:
        return self.base in ("conditional", "streaming", "mapped")

    def passes(self, point: str) -> bool:
        """Whether a run of this kind passes this named moment."""
        samples = self.draws_images or "measured" in self.extras
        return {"picture": samples or "pictured" in self.extras, "last samples": samples}.get(point, True)

    def fits(self, extra: str) -> bool:
        """Whether this base can have the extra."""
        return not (self.base == "compile" or (extra == "measured" and self.draws_images))


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
