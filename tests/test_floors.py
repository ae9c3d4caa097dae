"""The import graph points down only: DESIGN's floors, read from the source files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import litdiffusion

PACKAGE = Path(litdiffusion.__file__).parent
FLOORS = {
    0: {"storage", "types", "gaussian", "errors", "seeding", "clock"},
    1: {"runs", "solver", "schedules", "nets", "data", "codecs", "metrics", "plots"},
    2: {"features", "parameterizations", "times", "weightings"},
    3: {"denoisers", "quality"},
    4: {"objectives", "samplers", "likelihood"},
    5: {"csv_log", "modules", "callbacks", "loggers", "hardware"},
    6: {"build", "instantiate", "checks", "exporting", "origins", "shapes", "trust"},
    7: {"attempts", "planning", "training", "checking", "sampling", "inpainting", "evaluation", "sweeps", "cli"},
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
BESIDE = {
    ("gaussian", "types"),
    ("weightings", "parameterizations"),
    ("objectives", "likelihood"),
    ("evaluation", "sampling"),
    ("inpainting", "sampling"),
    ("checking", "training"),
    ("training", "planning"),
    ("sweeps", "training"),
    ("sweeps", "evaluation"),
    ("cli", "sweeps"),
    ("training", "attempts"),
    ("modules", "csv_log"),
    ("callbacks", "modules"),
    ("modules", "loggers"),
    ("callbacks", "loggers"),
    ("build", "instantiate"),
    ("build", "checks"),
    ("build", "trust"),
    ("instantiate", "trust"),
}
LIGHTNING_FROM, HYDRA_FROM = 5, 6


def imports() -> list[tuple[str, str, Path]]:
    """(part, imported module, file) of every import statement in the package, also inside functions."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found += [(part, name, path) for name in names if part != "__init__"]
    return found


def test_every_part_has_a_floor():
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert parts == set(FLOOR)


def test_imports_point_down():
    for part, module, path in imports():
        if not module.startswith("litdiffusion."):
            continue
        other = module.split(".")[1]
        allowed = part == other or (part, other) in BESIDE or FLOOR[other] < FLOOR[part]
        assert allowed, f"{path.name}: {part} (floor {FLOOR[part]}) imports {other} (floor {FLOOR[other]})"


def test_lightning_and_hydra_stay_above_their_floors():
    for part, module, path in imports():
        if module.split(".")[0] == "lightning":
            assert FLOOR[part] >= LIGHTNING_FROM or part == "data", path
        if module.split(".")[0] in ("hydra", "omegaconf"):
            assert FLOOR[part] >= HYDRA_FROM, path


@pytest.mark.parametrize("module", ["cli", "errors"])
def test_the_command_line_starts_without_torch(module):
    code = f"import sys, litdiffusion.{module}; print('torch' in sys.modules or 'lightning' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
