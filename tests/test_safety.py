"""What a config may name: a yaml of one's own, and that of a checkpoint somebody sent."""

import ast
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUIET, ROOT, TINY, UNDRAWN, UNMEASURED, composed
from omegaconf import OmegaConf

from litdiffusion.build import Run, build
from litdiffusion.config.make import make
from litdiffusion.config.received import checked_part
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained

BARE = [*UNDRAWN, "schedule.steps=25"]
BARE += ["callbacks.forward_process=null", "logger=none"]
REFUSED = (
    *("os.system", "subprocess.run", "builtins.eval", "builtins.exec", "shutil.rmtree", "pickle.loads"),
    *("importlib.import_module", "functools.partial", "runpy.run_path", "pathlib.Path.unlink", "code.interact"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.serialization.load", "torch.utils.collect_env.run"),
    *(
        "torch.os.system",
        "litdiffusion.commands.cli.os.system",
        "litdiffusion.data.images.pickle.loads",
        "hydra.utils.call",
    ),
    *("torch.nn.Module.__subclasses__", "litdiffusion.data.images.torch.load", "numpy.load", "yaml.unsafe_load"),
)
SENT = (  # beside the above: harmless in one's own yaml, but no part of a model
    *("torch.optim.AdamW", "torch.compile", "lightning.Trainer", "torch.from_file"),
    *("diffusers.UNet2DModel.from_pretrained", "litdiffusion.pretrained.sampling.sample_to_files"),
    *("litdiffusion.data.images.Path", "litdiffusion.data.images.torch.from_file"),
    *("litdiffusion.callbacks.Trajectory", "scipy.optimize.minimize"),
)


@pytest.mark.parametrize("name", REFUSED)
def test_dangerous_names_are_refused_before_they_are_called(name):
    for node in ({"_target_": name}, {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": name}]}):
        with pytest.raises(UserError, match="is refused"):
            make(OmegaConf.create(node), "model")


@pytest.mark.parametrize("name", [*REFUSED, *SENT])
def test_a_checkpoint_may_name_no_more_than_parts_and_networks(name):
    with pytest.raises(UserError, match=r"is refused|of a trusted package|outside the trusted packages"):
        checked_part({"_target_": "litdiffusion.nets.Adapter", "net": [{"_target_": name}]}, "model")


@pytest.mark.parametrize("name", REFUSED)
def test_trust_in_a_package_is_no_trust_in_what_it_imports(name, mynets, tmp_path):
    (tmp_path / "code" / f"{mynets}.py").write_text("import os, subprocess, torch, litdiffusion.data.files as files\n")
    for passed_on in ("os.system", "subprocess.run", "torch.load", "torch.hub.load", "files.idx_problem"):
        with pytest.raises(UserError):
            checked_part({"_target_": f"{mynets}.{passed_on}"}, "model", [mynets])
    with pytest.raises(UserError):
        checked_part({"_target_": name}, "model", [mynets])


NET = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("imported").touch()
class Net(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.net = nn.Linear(shape[0], shape[0])
    def forward(self, x, label, class_label=None):
        return self.net(x)
"""


@pytest.fixture
def mynets(tmp_path, monkeypatch) -> str:
    """A net of somebody's own, that notes when it is imported."""
    name = f"mynets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{name}.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path / "code")
    return name


def own_run(mynets: str, tmp_path: Path, *overrides: str) -> Path:
    """A config folder of the user's own, outside the project's."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "own.yaml").write_text(f"_target_: {mynets}.Net\nshape: ${{derived.shape}}\n")
    return tmp_path / "conf"


def test_a_checkpoint_alone_is_sampled_from_another_folder_without_its_config(mynets, tmp_path, command):
    conf = own_run(mynets, tmp_path)
    arguments = ["--config-dir", str(conf), "model=own", *TINY, *BARE, *UNMEASURED, "data.size=600"]
    arguments += ["callbacks.progress_bar=null", "callbacks.best=null"]
    status, _, err = command("train.py", *arguments, f"hydra.run.dir={tmp_path}/run")
    assert status == 0, err
    assert f"model._target_ runs code of {mynets}" in err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "run/checkpoints/last.ckpt", elsewhere / "sent.ckpt")
    shutil.rmtree(conf)
    shutil.rmtree(tmp_path / "run")
    sys.modules.pop(mynets)
    (tmp_path / "code" / "imported").unlink()
    status, _, err = command("scripts/sample.py", f"ckpt={elsewhere}/sent.ckpt", "n=3")
    assert status == 2
    assert f"trust={mynets}" in err
    assert not (tmp_path / "code" / "imported").exists()  # refused before anything of it ran
    status, _, err = command("scripts/sample.py", f"ckpt={elsewhere}/sent.ckpt", "n=3", f"trust={mynets}")
    assert status == 0, err
    samples = np.load(elsewhere / "samples_000" / "samples.npz")["samples"]
    assert samples.shape == (3, 2)


def test_a_tampered_checkpoint_runs_nothing(finished, tmp_path):
    path = finished / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content.pop("sealed", None)
    for part, name in (("codec", "os.system"), ("sampler", "mypackage.Sampler"), ("model", "torch.hub.load")):
        config = {**content["litdiffusion"]["config"], part: {"_target_": name}}
        torch.save({**content, "litdiffusion": {**content["litdiffusion"], "config": config}}, tmp_path / "sent.ckpt")
        with pytest.raises(UserError, match=r"is refused|outside the trusted packages"):
            Pretrained(tmp_path / "sent.ckpt")
    config = {key: value for key, value in content["litdiffusion"]["config"].items() if key != "schedule"}
    torch.save({**content, "litdiffusion": {**content["litdiffusion"], "config": config}}, tmp_path / "sent.ckpt")
    with pytest.raises(UserError, match="has no schedule"):
        Pretrained(tmp_path / "sent.ckpt")


def test_strangers_are_named_once_and_known_ones_not(mynets, tmp_path):
    cfg = composed(*TINY, *QUIET, "data.size=600")
    cfg.model = {"_target_": f"{mynets}.Net", "shape": "${derived.shape}"}
    with pytest.warns(UserWarning, match=f"runs code of {mynets}"):
        build(cfg.copy(), Run(tmp_path / "a"))
    cfg.trusted = [mynets]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        build(cfg, Run(tmp_path / "b"))


def test_every_load_of_a_file_is_told_to_load_weights_only():
    found = 0
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), ROOT / "train.py"]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            assert name not in ("pickle.load", "pickle.loads", "numpy.load"), path
            told = {k.arg: ast.unparse(k.value) for k in call.keywords}
            if name == "np.load":  # a table of the user's own
                assert told["allow_pickle"] == "False", path
            if name == "torch.load":
                found += 1
                assert told["weights_only"] == "True", path
    assert found == 2  # checkpoints, and the weights of Inception


@pytest.fixture
def typed(command, tmp_path):
    """Runs ``train.py`` with one yaml of the user's own, an experiment or a model; the error line."""

    def run(text: str, group: str = "experiment") -> tuple[str, str]:
        path = tmp_path / "my" / group / "mine.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        status, _, err = command("train.py", "--config-dir", str(tmp_path / "my"), f"{group}=mine", *TINY[3:])
        assert status == 2, err
        assert "Traceback" not in err
        return err, str(path)

    return run


GLOBAL = "# @package _global_\n"
NODE = "_target_: litdiffusion.nets.MLP\n"
TYPED = [
    ("experiment", "ema_decy: 0.9\n", "ema_decy is not a key of the config; did you mean ema_decay?"),
    ("experiment", "schedule:\n  steps: many\n", "schedule.steps='many' has the wrong type"),
    ("experiment", "defaults:\n  - override /model: mpl\n", "model=mpl is not known; did you mean mlp?"),
    (
        "model",
        f"_target_: torch.nn.Sequential\n_args_:\n  - {NODE}    hiden: 3\n",
        "model._args_.0.hiden is not an argument of MLP; did you mean hidden?",
    ),
]
MORE = [
    ("experiment", "callbacks:\n  trajectry:\n    points: 5\n", "callbacks.trajectry is not a key of the config"),
    ("experiment", "derived:\n  shpe: [2]\n", "derived.shpe is not a key of the config; did you mean shape?"),
    ("experiment", "trainer:\n  max_step: 5\n", "trainer.max_step is not an argument of Trainer; did you mean"),
    ("experiment", "defaults:\n  - override /modle: mlp\n", "there is no group or key modle; did you mean model?"),
    ("experiment", "trainer:\n  max_steps: [\n", "this yaml cannot be read"),
    ("experiment", "model:\n  shape: ${derived.shpae}\n", "derived.shpae"),
    ("model", f"{NODE}hiden: 3\n", "model.hiden is not an argument of MLP; did you mean hidden?"),
    ("model", NODE.replace("MLP", "MPL"), "model._target_=litdiffusion.nets.MPL cannot be imported; did you mean MLP?"),
    (
        "model",
        "_target_: litdiffusion.nets.Adapter\nnet:\n  _target_: torch.nn.Lineer\n",
        "model.net._target_=torch.nn.Lineer cannot be imported; did you mean Linear?",
    ),
]


@pytest.mark.parametrize(
    ("group", "text", "message"), [*TYPED, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
)
def test_a_typing_error_in_a_yaml_is_named_with_its_file(group, text, message, typed):
    err, path = typed((GLOBAL if group == "experiment" else "") + text, group)
    assert message in err
    assert path in err
