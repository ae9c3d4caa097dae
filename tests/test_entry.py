"""The command ``litdiffusion`` and what its ``init`` writes, in this process; tests/test_package.py installs it."""

import re
import subprocess
import sys
import tomllib

import pytest
from conftest import BARE_RUN, ROOT, composed
from hydra import compose, initialize_config_dir, initialize_config_module

from litdiffusion.commands import cli, entry, explaining
from litdiffusion.config.paths import CONF
from litdiffusion.config.words import hydra_arguments


@pytest.fixture
def typed(monkeypatch, tmp_path, capfd):
    """Runs ``litdiffusion ...`` in this process: (exit status, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/litdiffusion", *words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        status = 0
        try:
            entry.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capfd.readouterr()

    return run


def test_the_list_of_commands_needs_neither_torch_nor_hydra():
    code = (
        "import sys; sys.argv = ['litdiffusion']; from litdiffusion.commands.entry import main; main()\n"
        "print('heavy:', sorted({'torch', 'lightning', 'hydra', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in out
    for name, command in entry.COMMANDS.items():
        assert name in out
        assert command.text in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "there is no command trian; did you mean train? (one of train, sample, "),
        (["model=unet"], "a command comes first, such as litdiffusion train model=unet"),
        (["sample"], "give a checkpoint: litdiffusion sample ckpt="),
        (["train", "model=unett"], "model=unett is not known; did you mean unet?"),
        (["compare", "nowhere"], "nowhere"),
        (["init", "torch"], "torch is the name of another package"),
        (["init", "3d"], "'3d' cannot be the name of a Python package"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_one_line(words, message, typed):
    status, _, err = typed(*words)
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith("error: ")
    assert message in err


def test_help_shows_the_command_as_it_was_typed(typed, command):
    assert "\n  litdiffusion sample ckpt=... sampler=ddim" in typed("sample", "--help")[1]
    assert re.search(
        r"\n  python \S*scripts/sample.py ckpt=... sampler=ddim", command("scripts/sample.py", "--help")[1]
    )
    assert "usage: litdiffusion compare" in typed("compare", "--help")[1]


def test_other_processes_and_dashboards_see_the_whole_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["litdiffusion", "seed=1"])
    cfg = composed("seed=1", config_name="train")
    monkeypatch.setattr(cli, "_BEFORE", ["train"])
    with cli.job(cfg):
        seen = list(sys.argv)
    assert seen == ["litdiffusion", "train", "seed=1"]
    assert sys.argv == ["litdiffusion", "seed=1"]


def test_a_config_path_is_relative_to_the_folder_or_else_to_the_script(tmp_path, monkeypatch):
    def found(*words: str) -> list[str]:
        return hydra_arguments(words, tmp_path / "scripts" / "train.py", CONF, "train")

    (tmp_path / "here" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert found("-cp", "mine") == ["-cp", f"{tmp_path}/here/mine"]
    assert found("--config-path=mine") == [f"--config-path={tmp_path}/here/mine"]
    assert found("-cp", "../conf") == ["-cp", f"{tmp_path}/scripts/../conf"]
    assert found("-cp", "/abs", "name=a") == ["-cp", "/abs", "name=a"]
    assert found("-cp", "pkg://mine.conf") == ["-cp", "pkg://mine.conf"]


def test_messages_name_packages_as_the_extras_do():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {package for extra in extras.values() for package in extra}
    assert {*explaining.PACKAGES.values(), "optuna>=4.5,<6", "pyarrow>=15"} <= named
    for path in [*(ROOT / "src").rglob("*.py"), *CONF.rglob("*.yaml")]:
        assert "litdiffusion[" not in path.read_text(), path  # the project is on no index


def test_a_config_of_ones_own_finds_the_yamls_by_their_package(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\nseed: 7\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        cfg = compose("mine", overrides=["hydra.searchpath=[pkg://litdiffusion.conf]"])
    assert (cfg.seed, cfg.model._target_) == (7, "litdiffusion.nets.MLP")
    with initialize_config_module("litdiffusion.conf", version_base="1.3"):
        assert compose("train", overrides=["data=digits"]).data._target_ == "litdiffusion.data.Digits"


def test_a_new_project_trains(typed, tmp_path):
    assert typed("init", "my-net")[0] == 0
    folder = tmp_path / "my-net"
    assert (folder / ".gitignore").is_file()
    assert "my_project" not in "".join(path.read_text() for path in folder.rglob("*.*") if path.is_file())
    sys.path.insert(0, str(folder))
    try:
        status, out, err = typed("train", "--config-dir", str(folder / "conf"), "experiment=first", *BARE_RUN)
    finally:
        sys.path.remove(str(folder))
    assert status == 0, err
    assert "33,794 parameters" in out
    assert typed("init", "my-net")[2].endswith("is not empty; give a new folder\n")
