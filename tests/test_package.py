"""The wheel, installed into an environment of its own: what it carries trains and draws in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BARE_RUN, CONF, ROOT, SMALL_JOB

pytestmark = pytest.mark.slow
QUICK = ["data.size=600", "data.batch_size=100", "schedule.steps=25"]
TYPED = {
    "litdiffusion ": "train sample evaluate likelihood inpaint interpolate export check compare init",
    "litdiffusion in": "inpaint interpolate init",
    "litdiffusion train model=u": "model=unet model=unet1d",
    "litdiffusion sample sampler=d": "sampler=ddim sampler=dpm_solver",
    "litdiffusion train model=unet model.ch": "model.channels.",
}
"""A line before TAB -> what bash offers."""
ASK = r"""
eval "$(litdiffusion -sc install=bash)"
COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; words=($COMP_LINE); COMP_CWORD=$(( ${#words[@]} - 1 ))
[[ "$COMP_LINE" == *" " ]] && COMP_CWORD=${#words[@]}
hydra_bash_completion
echo "${COMPREPLY[*]}"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout, built from a copy, so that no build folder of before gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "copy" / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "copy")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "copy"))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel, which sees the packages that the tests run with."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(sysconfig.get_paths()["purelib"])  # torch is not installed again
    pip("--python", str(folder / "bin" / "python"), "install", str(wheel))
    return folder / "bin"


def pip(*words: str) -> None:
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *words, *options], check=True)


@pytest.fixture
def typed(programs: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs a line in a folder of the test, in that environment; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"

    def run(*words: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, stdin=subprocess.DEVNULL, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_carries_the_yamls_the_project_the_model_and_the_license(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = CONF.parent
    folders = package / "commands" / "project", package / "pretrained" / "models"
    carried = [*CONF.rglob("*.yaml"), *(path for folder in folders for path in folder.rglob("*.*"))]
    paths = {f"litdiffusion/{p.relative_to(package)}" for p in carried if p.is_file() and p.suffix != ".pyc"}
    assert paths <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "scripts/")) for name in names)


def test_an_empty_folder_trains_and_draws(typed, programs, tmp_path):
    assert str(programs.parent) in typed("python", "-c", "import litdiffusion; print(litdiffusion.__file__)")
    out = typed("litdiffusion", "train", "name=a", *BARE_RUN, *QUICK)
    assert f"checkpoint: {tmp_path}/outputs/a/checkpoints/last.ckpt" in out
    typed("litdiffusion", "sample", "ckpt=outputs/a/checkpoints/last.ckpt", "n=4", "out=drawn")
    assert (tmp_path / "drawn" / "samples.npz").is_file()
    assert "outputs/digits/samples_000" in typed("litdiffusion", "sample", "digits")  # a model of the wheel
    assert (tmp_path / "outputs" / "digits" / "samples_000" / "samples.png").is_file()
    saved = ["-cp", "outputs/a/.hydra", "-cn", "config"]  # relative to the folder, since there is no script
    assert "checkpoint: " in typed("litdiffusion", "train", *saved, "name=b")


@pytest.mark.parametrize("program", [["litdiffusion"], ["python", "-m", "litdiffusion"]], ids=" ".join)
def test_lightning_starts_the_second_process_from_the_command(program, typed, tmp_path):
    two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    words = [word for word in (*BARE_RUN, *QUICK) if not word.startswith("trainer.accelerator")]
    out = typed(*program, "train", "name=two", *two, *words)
    assert "on 2 x cpu" in out
    assert (tmp_path / "outputs" / "two" / "checkpoints" / "last.ckpt").is_file()
    assert "checkpoint: " in typed(*program, "train", "name=two", *two, *words, "trainer.max_steps=6")


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_of_the_command_runs_its_jobs_in_other_processes(launcher, typed, tmp_path):
    typed("litdiffusion", "train", "-m", "sweep=s", "seed=1,2", f"hydra/launcher={launcher}", *SMALL_JOB)
    assert typed("litdiffusion", "compare", "outputs/sweeps/s").count("complete") >= 2


@pytest.mark.parametrize("line", TYPED)
def test_bash_completes_commands_groups_and_choices(line, typed):
    assert typed("bash", "-c", ASK, "bash", line).split() == TYPED[line].split()


def test_a_new_project_passes_its_test_and_trains(typed, tmp_path):
    typed("litdiffusion", "init", "my-moons")
    folder = tmp_path / "my-moons"
    assert "2 passed" in typed("python", "-m", "pytest", "-p", "no:cacheprovider", cwd=folder)
    typed("litdiffusion", "train", "--config-dir", "conf", "experiment=first", "name=a", *BARE_RUN, cwd=folder)
    checkpoint = "ckpt=outputs/a/checkpoints/last.ckpt"
    typed("litdiffusion", "sample", checkpoint, "trust=my_moons", "n=4", "out=drawn", cwd=folder)
