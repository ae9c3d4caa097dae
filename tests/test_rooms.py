"""The import graph points one way only: the rooms of docs/architecture.md, read from the source files."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import litdiffusion

PACKAGE = Path(litdiffusion.__file__).parent
ROOMS = (
    *("errors", "parts", "plots", "codecs", "nets", "diffusion", "data", "runs", "measure", "training", "callbacks"),
    *("config", "build", "pretrained", "reports", "sweeps", "commands"),
)
"""From the ground up: a room imports only those before it."""
LIGHTNING = {"data", "runs", *ROOMS[ROOMS.index("training") :]}
HYDRA = {*ROOMS[ROOMS.index("config") :]}
UPWARD = {("training/base.py", "load_from_checkpoint", "pretrained")}
"""Lightning's own name for loading a module stands on the module, and loading one builds it."""


def imports() -> Iterator[tuple[Path, str, str]]:
    """(file below the package, innermost function, imported module) of every import statement."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            inside = [function.name for function in functions if function.lineno <= node.lineno <= function.end_lineno]
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                package = node.module == "litdiffusion"
                names = [f"litdiffusion.{alias.name}" for alias in node.names] if package else [node.module]
            for name in names:
                yield path.relative_to(PACKAGE), inside[-1] if inside else "", name


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def test_the_package_has_these_rooms_and_no_loose_file_beside_them():
    found = {room(path.relative_to(PACKAGE)) for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert found == {*ROOMS, "conf", "py.typed"}
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "build.py", "errors.py"}


def test_a_room_imports_only_those_before_it():
    upward = set()
    for path, function, name in imports():
        if (len(path.parts) == 1 and path.name.startswith("__")) or not name.startswith("litdiffusion."):
            continue
        there = name.split(".")[1]
        if ROOMS.index(there) > ROOMS.index(room(path)):
            upward.add((path.as_posix(), function, there))
    assert upward == UPWARD


def test_lightning_and_hydra_stay_above_the_mathematics():
    for path, _, name in imports():
        package = name.split(".")[0]
        assert package != "lightning" or room(path) in LIGHTNING, path
        assert package not in ("hydra", "omegaconf") or room(path) in HYDRA, path


def test_the_mathematics_needs_torch_alone():
    allowed = {"torch", "torchdiffeq", "numpy", "scipy", "litdiffusion", *sys.stdlib_module_names}
    for path, _, name in imports():
        if room(path) == "diffusion":
            assert name.split(".")[0] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("module", ["commands.cli", "errors", "config.resolvers"])
def test_the_command_line_starts_without_torch(module):
    code = f"import sys, litdiffusion.{module}; print('torch' in sys.modules or 'lightning' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_every_public_name_can_be_imported_from_the_package():
    for name in dir(litdiffusion):
        assert getattr(litdiffusion, name) is not None
    assert litdiffusion.LinearChain is importlib.import_module("litdiffusion.diffusion.schedules").LinearChain
    assert litdiffusion.Pretrained is importlib.import_module("litdiffusion.pretrained.model").Pretrained
    with pytest.raises(AttributeError, match="has no attribute 'Unheard'"):
        litdiffusion.Unheard  # noqa: B018


def test_the_names_of_the_rooms_do_not_clash():
    owners: dict[str, set[int]] = {}
    for room_name in litdiffusion.ROOMS:
        module = importlib.import_module(f"litdiffusion.{room_name}")
        for name in module.__all__:
            owners.setdefault(name, set()).add(id(getattr(module, name)))
    assert {name for name, objects in owners.items() if len(objects) > 1} == set()


def test_a_room_is_imported_without_the_others():
    code = "from litdiffusion import sweeps; import sys; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
