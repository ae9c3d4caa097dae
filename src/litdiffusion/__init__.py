"""litdiffusion: diffusion models from parts that fit together.

The public names of all rooms can be imported from here: ``from litdiffusion import Denoiser, DDIM``. A room is
imported when one of its names is first used, so that ``train.py --help`` stays fast.

Notation (all modules): ``x_0`` is data, ``eps ~ N(0, I)``, ``t`` in [0, 1] grows with noise, ``s < t`` is the next,
cleaner time; ``alpha`` and ``sigma`` are always the scales in ``x_t = alpha * x_0 + sigma * eps``;
``SNR = alpha² / sigma²`` and ``ratio = sigma / alpha``. Variances are called ``variance``, deviations ``std``.
"""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOMS = (
    *(
        "nets",
        "codecs",
        "diffusion.levels",
        "diffusion.schedules",
        "diffusion.parameterizations",
        "diffusion.denoisers",
    ),
    *("diffusion.times", "diffusion.weightings", "diffusion.objectives", "diffusion.samplers", "diffusion.likelihood"),
    *("data", "measure.quality", "training", "callbacks", "pretrained"),
)
"""Where public names are looked for, in this order."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(__name__)
    own = Path(__file__).parent / name  # ``from litdiffusion import sweeps`` asks here first, and needs no other room
    for room in () if name.startswith("_") or own.is_dir() or own.with_suffix(".py").is_file() else ROOMS:
        module = import_module(f"{__name__}.{room}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", *(name for room in ROOMS for name in import_module(f"{__name__}.{room}").__all__)})
