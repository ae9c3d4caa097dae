"""The table of all config keys: what each key decides about runs, checkpoints, exports and jobs of a sweep.

A new key of ``conf/`` needs a row here; a test over all yamls fails without it.
"""

from collections.abc import Iterable
from enum import Flag, auto


class Use(Flag):
    """What a key decides; a row of `KEYS` joins several with ``|``."""

    NOTHING = 0
    RUN = auto()
    """Identity of a run: a run cannot be resumed with another value."""
    LENGTH = auto()
    """Length of a run: a larger value resumes a complete run."""
    MODEL = auto()
    """Identity of a model: a checkpoint is loaded only with the same value."""
    EXPORT = auto()
    """Part of an exported model, which needs the key to sample or to find its data and metrics."""
    JOB = auto()
    """Part of the name of a sweep's job, because the key changes what the job computes."""
    PLAIN = auto()
    """Stored as a value even if it is text from the environment, because a checkpoint or a sweep's table reads it."""


MEASURED = ("data_mean", "data_std", "sigma_data", "conditions", "latent_mean", "latent_std")
"""The values of ``derived`` that are measured on training items."""
FROM_DATA = (*MEASURED, "noise_label_range")
"""These, and what follows from them: numbers that a new run of the same model takes from its own data."""

PART = Use.RUN | Use.MODEL | Use.EXPORT | Use.JOB | Use.PLAIN
TRAINING = Use.RUN | Use.JOB

KEYS: dict[str, Use] = {
    # the model and its process
    **dict.fromkeys(("conditional", "learned_variance", "model", "codec", "schedule", "parameterization"), PART),
    **dict.fromkeys(("times", "weighting", "objective", "data"), PART),
    "codec.cache": Use.PLAIN,
    "codec.ckpt": Use.JOB,  # its checksum identifies the autoencoder
    "data.augment": TRAINING | Use.EXPORT | Use.PLAIN,
    "data.path": Use.RUN | Use.EXPORT | Use.JOB | Use.PLAIN,
    **dict.fromkeys(("data.root", "data.num_workers", "data.memory_limit_gb", "data.cache"), Use.EXPORT | Use.PLAIN),
    **dict.fromkeys(("data.batch_size", "data.val_size", "data.seed"), TRAINING | Use.EXPORT | Use.PLAIN),
    **dict.fromkeys(("data.streaming", "data.shuffle_buffer"), TRAINING | Use.EXPORT | Use.PLAIN),
    **dict.fromkeys(("seed", "ema_decay", "class_dropout"), TRAINING | Use.EXPORT | Use.PLAIN),
    # sampling and measuring
    **dict.fromkeys(("sampler", "clip_samples", "metrics", "recipe", "guidance"), TRAINING | Use.EXPORT | Use.PLAIN),
    "guide": TRAINING | Use.EXPORT | Use.PLAIN,
    **dict.fromkeys(("metrics.cache", "metrics.features.cache", "guide.features.cache"), Use.EXPORT | Use.PLAIN),
    **dict.fromkeys(("metric", "experiment"), TRAINING | Use.PLAIN),
    # training
    **dict.fromkeys(("optimizer", "lr_schedule", "compile"), TRAINING | Use.PLAIN),
    **dict.fromkeys(("trainer", "callbacks"), TRAINING),
    **dict.fromkeys(("trainer.max_steps", "trainer.max_epochs", "trainer.max_time"), Use.LENGTH | Use.JOB | Use.PLAIN),
    "budget": Use.JOB | Use.PLAIN,  # becomes trainer.max_steps
    "callbacks.final_samples": Use.JOB,  # measures what the jobs of a sweep are compared by
    **dict.fromkeys(("trainer.callbacks", "skip_nonfinite", "ckpt_path"), Use.JOB),
    # hardware, folders, output, and how often a run saves
    **dict.fromkeys(("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"), Use.NOTHING),
    **dict.fromkeys(("trainer.plugins", "threads", "trainer.default_root_dir"), Use.NOTHING),
    **dict.fromkeys(("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.profiler"), Use.NOTHING),
    **dict.fromkeys(("trainer.logger", "logger", "callbacks.progress_bar"), Use.NOTHING),
    **dict.fromkeys(("callbacks.trajectory", "callbacks.forward_process", "callbacks.field"), Use.NOTHING),
    "callbacks.condition_sweep": Use.NOTHING,
    **dict.fromkeys(("callbacks.langevin_path", "callbacks.last.every_n_steps", "callbacks.last.minutes"), Use.NOTHING),
    "gradient_checkpointing": Use.NOTHING,
    **dict.fromkeys(("save_every", "trusted", "expected", "dry_run"), Use.NOTHING),
    # the name of a run, and how it is started
    **dict.fromkeys(("name", "sweep", "tags"), Use.PLAIN),
    "push": Use.NOTHING,  # where the finished model goes
    **dict.fromkeys(("resume", "allow_changed_data", "retries", "print_config", "report"), Use.NOTHING),
    # groups of scripts/inpaint.py, which no run has
    **dict.fromkeys(("inpainting", "mask"), Use.NOTHING),
    # values that are computed from the others
    "derived": Use.EXPORT | Use.PLAIN,
}


def decides(key: str, use: Use) -> bool:
    """Whether a dotted key decides ``use``, by its row in `KEYS` or by the row of the nearest key above it.

    A key without such a row, from a user's own yaml, identifies the run and the job.
    """
    parts = key.split(".")
    rows = (KEYS.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    return use in next((row for row in rows if row is not None), TRAINING)


def keys_for(use: Use) -> list[str]:
    """Every key of the table whose own row decides ``use``."""
    return [key for key, row in KEYS.items() if use in row]


def relevant(overrides: Iterable[str]) -> list[str]:
    """The overrides that change what a job computes, in their order; ``hydra.*`` never does."""
    keys = ((word, word.lstrip("+~").partition("=")[0]) for word in overrides)
    return [word for word, key in keys if not key.startswith("hydra") and decides(key, Use.JOB)]
