"""The import graph points down only: DESIGN's floors, read from the source files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import litdiffusion

PACKAGE = Path(litdiffusion.__file__).parent
FLOORS = {
    0: {"storage", "types", "gaussian", "errors", "seeding", "clock", "described", "hints"},
    1: {"runs", "solver", "schedules", "nets", "data", "codecs", "metrics", "plots"},
    2: {"features", "parameterizations", "times", "weightings"},
    3: {"denoisers", "quality"},
    4: {"objectives", "samplers", "likelihood"},
    5: {"csv_log", "modules", "callbacks", "loggers", "hardware"},
    6: {"build", "checks", "config_tree", "derived", "exporting", "instantiate", "origins", "shapes"}
    | {"trainer", "trust"},
    7: {"attempts", "checking", "cli", "evaluation", "inpainting", "planning", "replaced", "resolvers", "sampling"}
    | {"sweeps", "training", "words"},
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
    ("cli", "replaced"),
    ("cli", "resolvers"),
    ("cli", "words"),
    ("resolvers", "sweeps"),
    ("training", "attempts"),
    ("modules", "csv_log"),
    ("modules", "loggers"),
    ("callbacks", "modules"),
    ("callbacks", "loggers"),
    ("build", "instantiate"),
    ("build", "checks"),
    ("build", "derived"),
    ("derived", "checks"),
    ("derived", "instantiate"),
    ("build", "trainer"),
    ("build", "trust"),
    ("trainer", "instantiate"),
    ("instantiate", "trust"),
}
UPWARDS = {("modules/diffusion.py", "load_from_checkpoint", "sampling")}
"""The one import that points up, inside the method where Lightning's users look for a module from a file."""
LIGHTNING_FROM, HYDRA_FROM = 5, 6


class Import(NamedTuple):
    """``module`` as file ``path`` of ``part`` imports it, inside ``function`` or ("") when the file itself is."""

    part: str
    module: str
    path: str
    function: str


def imports() -> list[Import]:
    """Every import statement in the package, also those inside functions."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part != "__init__":
            found += [Import(part, *rest) for rest in _named(ast.parse(path.read_text()), relative.as_posix())]
    return found


def _named(tree: ast.AST, path: str, function: str = "") -> Iterator[tuple[str, str, str]]:
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Import):
            yield from ((alias.name, path, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "litdiffusion":
            yield from ((f"litdiffusion.{alias.name}", path, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, path, inside
        yield from _named(node, path, inside)


def test_every_part_has_a_floor():
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert parts == set(FLOOR)


def test_imports_point_down():
    upwards, beside = set(), set()
    for part, module, path, function in imports():
        if not module.startswith("litdiffusion."):
            continue
        other = module.split(".")[1]
        if part == other or FLOOR[other] < FLOOR[part]:
            continue
        if (path, function, other) in UPWARDS:
            upwards.add((path, function, other))
            continue
        beside.add((part, other))
        allowed = (part, other) in BESIDE
        assert allowed, f"{path}: {part} (floor {FLOOR[part]}) imports {other} (floor {FLOOR[other]})"
    assert upwards == UPWARDS  # nothing is allowed that no file needs
    assert beside == BESIDE


def test_lightning_and_hydra_stay_above_their_floors():
    for part, module, path, _ in imports():
        if module.split(".")[0] == "lightning":
            assert FLOOR[part] >= LIGHTNING_FROM or part == "data", path
        if module.split(".")[0] in ("hydra", "omegaconf"):
            assert FLOOR[part] >= HYDRA_FROM, path


@pytest.mark.parametrize("module", ["cli", "errors"])
def test_the_command_line_starts_without_torch(module):
    code = f"import sys, litdiffusion.{module}; print('torch' in sys.modules or 'lightning' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
