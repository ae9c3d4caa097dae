"""litdiffusion: diffusion models from parts that fit together.

Nothing is imported here, so that ``train.py --help`` stays fast; import each part from its module, for example
``from litdiffusion.diffusion.schedules import linear_schedule``.

Notation (all modules): ``x_0`` is data, ``eps ~ N(0, I)``, ``t`` in [0, 1] grows with noise, ``s < t`` is the next,
cleaner time; ``alpha`` and ``sigma`` are always the scales in ``x_t = alpha * x_0 + sigma * eps``;
``SNR = alpha² / sigma²`` and ``ratio = sigma / alpha``. Variances are called ``variance``, deviations ``std``.
"""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version(__name__)
