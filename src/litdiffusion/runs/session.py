"""When an attempt at a run began, and with what: machine and versions. Imports no torch."""

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("litdiffusion", "torch", "torchvision", "lightning", "hydra-core", "numpy", "scipy", "diffusers", "wandb")
"""The packages whose versions may explain another result."""


def session() -> dict[str, str]:
    """Time, machine and versions of this process: name -> text. The machine's own name is left out."""
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    """The processor's name as Linux knows it, else as Python does."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(errors="replace").splitlines() if cpus.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
