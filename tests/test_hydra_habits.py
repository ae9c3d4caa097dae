"""What users of Hydra type by habit works here, or is answered in one line."""

import inspect
import os
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import hydra.utils
import lightning
import pytest
import wandb
import yaml
from conftest import CONF, ROOT, TINY, composed
from hydra import compose, initialize_config_dir
from wandb_records import records

from litdiffusion.config.hints import candidates, did_you_mean
from litdiffusion.config.identity import changes
from litdiffusion.nets import MLP, UNet
from litdiffusion.runs.record import read_record
from litdiffusion.sweeps import job_name

SMALL = [*(word for word in TINY if "warmup" not in word), "trainer.enable_progress_bar=false", "data.size=600"]
BARE = [*SMALL, "schedule.steps=50", "callbacks=none", "logger=none", "lr_schedule=constant"]
PARTS = """
import torch
from lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader


class Points(LightningDataModule):
    def __init__(self, seed: int, scale: float = 1.0):
        super().__init__()
        self.points = scale * torch.randn(256, 2, generator=torch.Generator().manual_seed(seed))

    def train_dataloader(self):
        return DataLoader(self.points, batch_size=64)

    val_dataloader = train_dataloader


class Plain(nn.Module):
    def __init__(self, shape, width: int = 8):
        super().__init__()
        self.first, self.last = nn.Linear(shape[0] + 1, width), nn.Linear(width, shape[0])

    def forward(self, x, label, class_label=None):
        return self.last(self.first(torch.cat([x, label[:, None] / 1000], dim=1)).relu())
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a net and a data module of a user's own."""
    (tmp_path / "habitparts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "habitparts"
    sys.modules.pop("habitparts", None)


def experiment(folder: Path, text: str) -> list[str]:
    """The words that take an experiment from a folder of the user's own."""
    (folder / "own/experiment").mkdir(parents=True)
    (folder / "own/experiment/mine.yaml").write_text(f"# @package _global_\n{text}")
    return ["--config-dir", str(folder / "own"), "experiment=mine"]


def only_error(status: int, err: str) -> str:
    assert status == 2, err
    (line,) = err.strip().splitlines()
    return line


def saved_config(folder: Path) -> dict:
    return yaml.safe_load((folder / ".hydra/config.yaml").read_text())


# group=null


@pytest.mark.parametrize("group", ["callbacks", "logger", "metrics", "lr_schedule", "recipe", "experiment"])
def test_a_part_that_a_run_can_do_without_is_taken_out_by_null(group, command):
    words = [word for word in BARE if not word.startswith(f"{group}=")]
    status, out, err = command("train.py", *words, f"{group}=null")
    assert status == 0, err
    assert "run folder" in out


def test_recipe_null_keeps_the_parts_of_train_yaml(command, tmp_path):
    assert command("train.py", *BARE, "recipe=null", "parameterization=v", "name=own")[0] == 0
    config = saved_config(tmp_path / "outputs/own")
    assert config["parameterization"]["_target_"].endswith(".V")
    assert config["sampler"]["_target_"].endswith(".Ancestral")


def test_null_in_an_experiments_defaults(command, tmp_path):
    words = experiment(tmp_path, "defaults:\n  - override /callbacks: null\n  - override /logger: null\n")
    status, _, err = command("train.py", *words, *SMALL, "name=own")
    assert status == 0, err
    assert not (tmp_path / "outputs/own/pictures").exists()
    assert not (tmp_path / "outputs/own/metrics.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=null"],
            "model=null leaves the run without a part that it needs; take one of autoencoder, diffusers_dit, ",
        ),
        (["-m", "recipe=null,edm"], "a sweep needs named choices; recipe is one of autoencoder, ddpm"),
    ],
)
def test_null_where_it_cannot_be(words, message, command):
    status, _, err = command("train.py", *words)
    assert message in only_error(status, err)


def test_null_is_swept_where_there_is_a_choice_none(command, tmp_path):
    status, _, err = command("train.py", "-m", "metrics=null,vectors", *BARE, "sweep=s")
    assert status == 0, err
    assert {path.name for path in (tmp_path / "outputs/sweeps/s").glob("metrics-*")} == {
        folder for folder in os.listdir(tmp_path / "outputs/sweeps/s") if folder.startswith("metrics-none")
    } | {folder for folder in os.listdir(tmp_path / "outputs/sweeps/s") if folder.startswith("metrics-vectors")}


# a run's saved config


def losses(folder: Path) -> dict[str, float]:
    return {name: value for name, value in read_record(folder).metrics.items() if name.startswith(("val/", "train/"))}


def other_folder(root: Path, known: Path) -> Path:
    (found,) = {path.parent for path in root.rglob("run.json")} - {known}
    return found


def test_a_saved_config_trains_the_same_again(command, tmp_path):
    first = tmp_path / "outputs/first"
    assert command("train.py", *BARE, "name=first", "seed=5", "optimizer=adam")[0] == 0
    status, _, err = command("train.py", "-cp", str(first / ".hydra"), "-cn", "config")
    assert status == 0, err
    again = other_folder(tmp_path / "outputs", first)
    assert again.parent.parent == tmp_path / "outputs"
    assert losses(again) == losses(first)
    assert changes(read_record(first).config, read_record(again).config) == []


def test_a_saved_config_with_other_values_and_a_name(command, tmp_path):
    assert command("train.py", *BARE, "sweep=s", "seed=5")[0] == 0
    (job,) = (tmp_path / "outputs/sweeps/s").iterdir()
    words = ["--config-path", str(job / ".hydra"), "--config-name=config.yaml"]
    status, _, err = command("train.py", *words, "name=more", "seed=6")
    assert status == 0, err
    assert read_record(tmp_path / "outputs/more").config["seed"] == 6
    status, _, err = command("train.py", *words, "sed=6")
    assert "there is no group or key sed; did you mean seed?" in only_error(status, err)


def test_a_saved_config_that_is_older_than_a_setting(command, tmp_path):
    assert command("train.py", *BARE, "name=first")[0] == 0
    path = tmp_path / "outputs/first/.hydra/config.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "print_config"}))
    status, _, err = command("train.py", "-cp", str(path.parent), "-cn", "config")
    assert status == 0, err


# hydra.sweeper.params


@pytest.mark.parametrize("word", ["hydra.sweeper.params", "+hydra.sweeper.params", "++hydra.sweeper.params"])
def test_the_sweepers_params_on_the_command_line(word, command, tmp_path):
    status, _, err = command("train.py", "-m", f'{word}={{seed: "1,2"}}', *BARE)
    assert status == 0, err
    assert seeds(tmp_path / "outputs/multirun") == [1, 2]


def test_the_sweepers_params_in_an_experiment_and_a_sweep_with_a_name(command, tmp_path):
    words = experiment(tmp_path, "hydra:\n  sweeper:\n    params:\n      seed: 1,2\n")
    status, out, err = command("train.py", "-m", *words, *BARE, "sweep=s", "hydra.sweeper.params.threads='1'")
    assert status == 0, err
    assert "2 of 2 jobs done" in out
    assert seeds(tmp_path / "outputs/sweeps/s") == [1, 2]


def seeds(folder: Path) -> list[int]:
    return sorted(read_record(path.parent).config["seed"] for path in folder.rglob("run.json"))


# compose


NOTEBOOK = """
import sys
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
with initialize_config_dir({conf!r}, version_base="1.3"):
    cfg = compose("train", overrides=["data.size=600"])
assert "torch" not in sys.modules, "composing must stay fast"
net = instantiate(cfg.model)
print(type(net).__name__, net.out_shape, cfg.derived.shape)
"""


@pytest.mark.slow
def test_a_notebook_composes_and_instantiates_without_importing_litdiffusion():
    code = NOTEBOOK.format(conf=str(CONF))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "MLP (2,) [2]", result.stderr


def test_what_is_derived_can_be_read_before_anything_is_built():
    cfg = composed("model=unet", "data=digits", "conditional=true", "recipe=edm", "metric=quality/precision")
    net = hydra.utils.instantiate(cfg.model)
    assert isinstance(net, UNet)
    assert (cfg.derived.num_classes, cfg.derived.num_class_embeds, list(cfg.derived.shape)) == (10, 11, [1, 8, 8])
    assert (cfg.derived.monitor, cfg.derived.mode) == ("quality/precision", "max")
    assert 0.5 < cfg.parameterization.sigma_data < 1
    assert cfg.derived.run_dir is None


def test_what_is_derived_follows_the_config_and_is_computed_once(monkeypatch):
    from litdiffusion.data import Spiral, TwoGaussians

    read, original = [], Spiral.read
    monkeypatch.setattr(Spiral, "read", lambda self: read.append(1) or original(self))
    cfg = composed("data.size=601")
    assert cfg.derived.num_classes == 0
    assert isinstance(hydra.utils.instantiate(cfg.model), MLP)
    assert read == [1]
    cfg.learned_variance = True
    assert cfg.derived.out_channels == 4
    assert read == [1, 1]
    assert composed("data=two_gaussians").data._target_.endswith(TwoGaussians.__name__)


def test_hydras_own_values_can_be_read_without_a_job():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["name=my", "seed=1"], return_hydra_config=True)
    assert cfg.hydra.run.dir == "outputs/my"
    assert cfg.hydra.sweep.dir.startswith("outputs/multirun/")
    assert (cfg.hydra.sweep.subdir, cfg.hydra.output_subdir) == ("0", ".hydra")
    cfg.sweep = "s"
    assert cfg.hydra.run.dir == "outputs/sweeps/s/seed-1"


def test_showing_the_config_loads_no_data(command, monkeypatch, tmp_path):
    monkeypatch.setenv("LITDIFFUSION_DATA", str(tmp_path / "nowhere"))
    status, out, err = command("train.py", "data=mnist", "model=unet", "--cfg", "job")
    assert status == 0, err
    assert "shape: ${fact:shape}" in out
    assert not (tmp_path / "nowhere").exists()


# version, tags, print_config


def test_the_version_is_known_without_torch():
    code = "import sys, litdiffusion; print(litdiffusion.__version__, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [version("litdiffusion"), "False"]


def test_tags_reach_the_dashboard(command, tmp_path):
    words = [word for word in BARE if not word.startswith("logger")]
    status, _, err = command("train.py", *words, "logger=wandb", "tags=[trial,small]", "name=tagged")
    assert status == 0, err
    wandb.teardown()
    (path,) = tmp_path.glob("outputs/tagged/wandb/offline-run-*/run-*.wandb")
    tags = [list(record.run.tags) for record in records(path) if record.WhichOneof("record_type") == "run"]
    assert tags[0] == ["trial", "small"]


def test_the_config_is_printed_as_a_tree_in_the_order_of_the_defaults(command, tmp_path):
    status, out, err = command("train.py", *BARE, "print_config=true", "name=shown")
    assert status == 0, err
    lines = out.splitlines()
    entries = ["├── seed: 0", "├── schedule", "├── sampler", "├── optimizer", "├── trainer", "├── model", "└── data"]
    places = [lines.index(entry) for entry in entries]
    assert places == sorted(places)
    assert "│   ├── shape: [2]" in lines
    assert places[-1] < next(index for index, line in enumerate(lines) if line.startswith("run folder"))
    status, out, err = command("train.py", *BARE, "name=shown")
    assert status == 0, err
    assert "is complete" in out
    assert job_name(["seed=1", "print_config=true"]) == job_name(["seed=1"])


# hints


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trainer.accumulate_grad_batchs=2", "did you mean trainer.accumulate_grad_batches?"),
        ("lr=1e-3", "did you mean optimizer.lr?"),
        ("batch_size=32", "did you mean data.batch_size?"),
        ("max_epochs=3", "did you mean trainer.max_epochs?"),
        ("epochs=3", "did you mean trainer.max_epochs?"),
        ("steps=3", "did you mean trainer.max_steps?"),
        ("lerning_rate=3", "did you mean optimizer.lr?"),
        ("optimizer.rl=1", "did you mean optimizer.lr?"),
        ("optimzer.lr=1", "did you mean optimizer.lr?"),
        ("modle=mlp", "did you mean model?"),
        ("+lr=2", "lr is not a key of the config; did you mean optimizer.lr?"),
        ("~sed", "did you mean seed?"),
        ("callbacks.mine.x=1", "to append to your config use +callbacks.mine.x=1"),
        ("model.foo=3", "to append to your config use +model.foo=3"),
        ("seed=1,2", "for a run of each add -m, for a list give 'seed=[1,2]'"),
        ("+seed=3", "Or add a second + to add or override 'seed': '++seed=3'"),
        ("a=[1", "a=[1 does not close all of its brackets and quotes"),
    ],
)
def test_a_typing_error_is_answered_with_the_name_that_was_meant(word, hint, command):
    status, _, err = command("train.py", word)
    assert hint in only_error(status, err)


def test_a_word_that_is_like_nothing_gets_no_hint(command):
    status, _, err = command("train.py", "quux=1")
    assert only_error(status, err) == "error: there is no group or key quux (see --help, --cfg job)"


def test_options_that_exclude_each_other(command):
    status, _, err = command("train.py", "--cfg", "job", "-m")
    assert "Only one of" in only_error(status, err)


def test_a_typing_error_in_a_yaml(command, tmp_path):
    status, _, err = command("train.py", *experiment(tmp_path, "lr: 1e-3\n"))
    assert "lr is not a key of the config; did you mean optimizer.lr? [in" in only_error(status, err)


def test_the_order_of_hints():
    known = ["model", "model.lr_scale", "optimizer", "optimizer.lr", "sampler.eps", "times.eps", "times.steps.eps"]
    assert candidates("model.lr", known) == ["optimizer.lr"]  # the same word elsewhere, before a similar one here
    assert candidates("model.lr_scal", known) == ["model.lr_scale"]
    assert candidates("eps", known) == ["sampler.eps", "times.eps"]
    assert candidates("time.eps", known) == ["times.eps"]
    assert did_you_mean("eps", known) == "; did you mean sampler.eps or times.eps?"
    assert did_you_mean("zzz", known) == ""


def test_every_argument_of_the_trainer_stands_in_the_yaml():
    node = composed().trainer
    assert set(node) == {"_target_", *inspect.signature(lightning.Trainer).parameters}


# arguments of a former target


@pytest.mark.parametrize(
    ("words", "dropped"),
    [
        (
            ["optimizer={_target_: torch.optim.SGD, lr: 0.1}"],
            "optimizer.betas, optimizer.weight_decay, optimizer.fused",
        ),
        (
            ["optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1", "optimizer.momentum=0.9"],
            "optimizer.betas, optimizer.weight_decay, optimizer.fused",
        ),
        (
            ["lr_schedule={_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.01}"],
            "lr_schedule.warmup_steps, lr_schedule.final",
        ),
        (
            ["model._target_=habitparts.Plain"],
            "model.noise_label_range, model.hidden, model.layers, model.out_channels",
        ),
        (
            ["data={_target_: habitparts.Points}"],
            "data.size, data.val_size, data.batch_size, data.standardise",
        ),
        (
            ["optimizer._target_=torch.optim.SGD", "model={_target_: habitparts.Plain, width: 4}"],
            "model.layers",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_arguments_of_a_former_target_go_and_are_named(words, dropped, command, parts):
    bare = [word for word in BARE if not word.startswith(("lr_schedule", "data."))]
    status, out, err = command("train.py", *bare, *words, f"trusted=[{parts}]")
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("dropped")]
    assert dropped in line
    assert "seed" not in line
    assert "shape" not in line


def test_they_go_too_where_a_yaml_names_the_new_target(command, tmp_path, parts):
    text = "data:\n  _target_: habitparts.Points\n  scale: 2.0\noptimizer:\n  _target_: torch.optim.SGD\n  lr: 0.1\n"
    words = [*experiment(tmp_path, text), f"trusted=[{parts}]", "name=own"]
    bare = [word for word in BARE if not word.startswith("data.")]
    status, out, err = command("train.py", *words, *bare, "+optimizer.momentum=0.9", "data.scale=3.0")
    assert status == 0, err
    assert out.count("dropped arguments of a replaced _target_") == 1
    record = read_record(tmp_path / "outputs/own").config
    assert record["optimizer"] == {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    assert record["data"] == {"_target_": "habitparts.Points", "seed": 0, "scale": 3.0}
    saved = saved_config(tmp_path / "outputs/own")
    assert saved["optimizer"] == record["optimizer"]
    assert saved["data"]["seed"] == "${seed}"


def test_a_yaml_that_builds_on_another_keeps_what_it_asked_for(command, tmp_path):
    folder = tmp_path / "own/optimizer"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [adamw]\n_target_: torch.optim.Adam\n")
    status, out, err = command("train.py", "--config-dir", str(tmp_path / "own"), "optimizer=mine", *BARE, "name=own")
    assert status == 0, err
    assert "dropped" not in out
    assert read_record(tmp_path / "outputs/own").config["optimizer"]["weight_decay"] == 0.0


def test_nothing_goes_where_the_target_stays(command):
    status, out, err = command("train.py", *BARE, "optimizer._target_=torch.optim.AdamW", "model={hidden: 16}")
    assert status == 0, err
    assert "dropped" not in out


# launchers


def test_all_processes_of_a_multirun_agree_on_its_folder():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", return_hydra_config=True)
    folder = cfg.hydra.sweep.dir
    assert str(os.getpid()) in folder
    code = (
        "import sys, pickle, litdiffusion.config.resolvers\n"
        "from hydra.core.utils import setup_globals; setup_globals()\n"
        "print(pickle.load(sys.stdin.buffer).hydra.sweep.dir)"
    )
    result = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(cfg), capture_output=True)
    assert result.stdout.decode().strip() == folder, result.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_the_jobs_of_a_launcher_share_a_folder_and_a_group(launcher, tmp_path):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher", reason="needs the sweep extra")
    words = [word for word in BARE if not word.startswith("logger")]
    line = [sys.executable, str(ROOT / "train.py"), "-m", "seed=1,2", f"hydra/launcher={launcher}", "logger=wandb"]
    subprocess.run([*line, *words], cwd=tmp_path, check=True, capture_output=True)
    (folder,) = {path.parent.parent for path in tmp_path.rglob("run.json")}
    assert seeds(folder) == [1, 2]
    found = [records(path) for path in folder.glob("*/wandb/offline-run-*/run-*.wandb")]
    groups = [record.run.run_group for rows in found for record in rows if record.WhichOneof("record_type") == "run"]
    assert set(groups) == {folder.name}
    assert len(found) == 2


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (
            ["experiment=toy_spiral", "recipe=flow"],
            "schedule=flow, parameterization=flow, times=uniform, sampler=euler",
        ),
        (["experiment=spiral_edm", "recipe=vp", "schedule=vp"], ""),
    ],
)
def test_a_choice_that_another_one_overrules_is_told(words, unused, command):
    status, _, err = command("train.py", *words, "dry_run=true")
    assert err.count("these are not used") == bool(unused)
    assert not unused or f"of recipe=flow these are not used: {unused}." in err
    assert status == 0, err
