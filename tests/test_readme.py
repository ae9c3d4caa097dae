"""Every command and every piece of code in README.md runs, and its table names what conf/ holds."""

import re
import subprocess

import pytest
from conftest import CONF, ROOT, TINY, TINY_UNET, UNDRAWN
from fakes import write_mnist

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
    if line.strip()
]
QUICK = [
    *(setting for setting in TINY if "warmup" not in setting),
    "callbacks.final_samples.points=60",
    "callbacks.trajectory.points=60",
    "callbacks.trajectory.steps=5",
    "callbacks.trajectory.shown=3",
    "+callbacks.field.levels=[0.5]",
    "callbacks.final_samples.steps=5",
    "callbacks.final_samples.images=4",
    "callbacks.trajectory.chains=2",
    "callbacks.live_quality.samples=20",
    "callbacks.live_quality.steps=5",
    "callbacks.live_likelihood.items=4",
    "callbacks.live_likelihood.steps=5",
    "data.batch_size=8",
    "trainer.enable_progress_bar=false",
    "callbacks.progress_bar=null",
]
SMALL_UNET = ["model.channels=[8,8]", "model.blocks=1", "+metrics.features.steps=20"]
CODE = [text for kind, text in BLOCKS if kind == "python"]


def with_quick(arguments: list[str]) -> list[str]:
    given = {argument.split("=")[0] for argument in arguments}
    quick = [*QUICK, *(SMALL_UNET if "model=unet" in arguments else [])]
    return [*arguments, *(setting for setting in quick if setting.split("=")[0] not in given)]


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_the_readme_is_short():
    assert README.count("\n") < 200
    assert {command.split()[0] for command in COMMANDS} == {"make", "python"}


TRAINING = [command for command in COMMANDS if command.startswith("python train.py")]
ELSEWHERE = (" -m ", "recipe=edm", "schedule=cosine", "sampler.steps=15", "conditional=false", "name=my_run")
"""Commands whose like is run by other tests: sweeps, recipes, names of runs."""


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=[pytest.mark.slow] * any(word in line for word in ELSEWHERE)) for line in TRAINING],
)
def test_training_commands(line, command, trained, tmp_path, monkeypatch):
    arguments = line.split()[2:]
    if "data=mnist" in arguments:
        monkeypatch.setenv("LITDIFFUSION_DATA", str(tmp_path / "data"))
        write_mnist(tmp_path / "data", train=2100, test=40)
    if "model=plain" in arguments:
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "mynets.py").write_text(next(text for text in CODE if "class Plain" in text))
        (tmp_path / "conf" / "model").mkdir(parents=True)
        yaml = next(text for kind, text in BLOCKS if kind == "yaml")
        (tmp_path / "conf" / "model" / "plain.yaml").write_text(yaml)
    if any("..." in argument for argument in arguments):
        folder = trained(*UNDRAWN, "data.batch_size=8")
        ckpt = folder / "checkpoints" / "last.ckpt"
        arguments = ["trainer.max_steps=6", f"ckpt_path={ckpt}"]
    status, out, err = command("train.py", *with_quick(arguments))
    assert status == 0, err
    assert "checkpoint: " in out


def test_sampling_command(trained, command, tmp_path):
    folder = trained(*UNDRAWN, "schedule.steps=60")
    (line,) = [c for c in COMMANDS if c.startswith("python scripts/sample.py")]
    checkpoint = f"ckpt={folder}/checkpoints/last.ckpt"
    arguments = [checkpoint if "ckpt=" in argument else argument for argument in line.split()[2:]]
    status, out, err = command("scripts/sample.py", *arguments)
    assert status == 0, err
    assert "100 samples in" in out
    assert {path.name for path in (folder / "checkpoints" / "samples_000").iterdir()} == {"samples.npz", "samples.png"}


@pytest.mark.parametrize("script", ["likelihood", "inpaint"])
def test_commands_on_a_checkpoint(script, trained, command):
    quiet = UNDRAWN
    folder = trained(*quiet, "schedule.steps=60", *(TINY_UNET if script == "inpaint" else ["data.size=600"]))
    (line,) = [c for c in COMMANDS if c.startswith(f"python scripts/{script}.py")]
    checkpoint = f"ckpt={folder}/checkpoints/last.ckpt"
    arguments = [checkpoint if "ckpt=" in argument else argument for argument in line.split()[2:]]
    status, out, err = command(f"scripts/{script}.py", *arguments, *(["n=8"] if script == "likelihood" else []))
    assert status == 0, err
    assert str(folder / "checkpoints") in out


def test_completion_command(command):
    assert '`eval "$(python train.py -sc install=bash)"`' in README
    status, out, _ = command("train.py", "-sc", "install=bash")
    assert status == 0
    assert "complete -o nospace" in out


@pytest.mark.parametrize("line", [command for command in COMMANDS if command.startswith("make")])
def test_make_commands_expand_to_what_they_promise(line):
    target = line.split()[1]
    promised = {"train": "python train.py experiment=digits", "test": "python -m pytest -n 2"}[target]
    dry = subprocess.run(
        ["make", "-n", target, "ARGS=data=mnist"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"{promised} data=mnist" in dry.stdout
    assert "pip install" in dry.stdout or (ROOT / ".venv" / ".installed").exists()


def test_the_table_of_parts_names_every_choice():
    table = README.split("## The parts")[1].split("Any value inside")[0]
    for group in (
        path for path in CONF.iterdir() if path.is_dir() and path.name not in ("codec", "hydra", "__pycache__")
    ):
        assert f"`{group.name}`" in table, group.name
        for choice in group.glob("*.yaml"):
            assert f"`{choice.stem}`" in table, f"{group.name}={choice.stem}"
