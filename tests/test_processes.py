"""Runs in processes of their own: signals and several processes. Slow: each process imports everything."""

import csv
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from launching import PLAIN, column, free_port, output, python, start, state

from litdiffusion.pretrained import Pretrained

pytestmark = pytest.mark.slow
DDP = ["trainer=ddp", "trainer.devices=2", "data.batch_size=300", "trainer.enable_progress_bar=false"]
KEEP = [
    "+callbacks.keep._target_=lightning.pytorch.callbacks.ModelCheckpoint",
    "+callbacks.keep.every_n_train_steps=4",
    "+callbacks.keep.save_top_k=-1",
    "+callbacks.keep.filename='step_{step}'",
    "+callbacks.keep.auto_insert_metric_name=false",
]


HOOKS = """
import os
import lightning as L

class Hooks(L.Callback):
    def note(self, name):
        with open(f"{os.environ['HOOKS']}_{os.environ.get('LOCAL_RANK', 0)}", "a") as file:
            file.write(name + chr(10))
    def on_before_backward(self, *args): self.note("before backward")
    def on_after_backward(self, *args): self.note("after backward")
    def on_before_optimizer_step(self, *args): self.note("before step")
    def on_before_zero_grad(self, *args): self.note("before zero")
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.note("end " + str(float(outputs["loss"]) > 0) + f" {trainer.global_step} {index}")
"""


def test_two_processes_train_and_resume_bit_for_bit(tmp_path):
    options = [*PLAIN, *DDP, *KEEP, "trainer.max_steps=12", "trainer.log_every_n_steps=4"]
    whole = start(tmp_path / "whole", *options, f"+callbacks.keep.dirpath={tmp_path}/kept")
    assert whole.wait(timeout=300) == 0, whole.stdout.read()
    ckpt = f"ckpt_path={tmp_path}/kept/step_4.ckpt"
    rest = start(tmp_path / "rest", *options, f"+callbacks.keep.dirpath={tmp_path}/again", ckpt)
    assert rest.wait(timeout=300) == 0, rest.stdout.read()
    first, second = (state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "rest"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert len((tmp_path / "whole" / "metrics.csv").read_text().splitlines()) > 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(number, status, tmp_path):
    options = [*PLAIN, "trainer.max_steps=1000000", "trainer.val_check_interval=100", "trainer.log_every_n_steps=50"]
    run = start(tmp_path, *options, "trainer.enable_progress_bar=false")
    for line in run.stdout:
        if "run folder" in line:
            break
    while not (tmp_path / "checkpoints" / "last.ckpt").exists():
        assert run.poll() is None
    run.send_signal(number)
    out, _ = run.communicate(timeout=120)
    assert run.returncode == status, out
    assert "Last good checkpoint" in out
    assert f"hydra.run.dir={tmp_path}" in out
    assert state(tmp_path / "checkpoints" / "last.ckpt")


def test_hooks_come_alike_on_one_process_and_two(tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    words = [
        *PLAIN,
        "+callbacks.hooks={_target_: hooks.Hooks}",
        "trainer.accumulate_grad_batches=2",
        "trainer.max_steps=5",
    ]
    for name, more in (("one", []), ("two", DDP)):
        run = start(tmp_path / name, *words, *more, PYTHONPATH=str(tmp_path), HOOKS=str(tmp_path / f"{name}_hooks"))
        out, _ = run.communicate(timeout=300)
        assert run.returncode == 0, out
    one, *two = ((tmp_path / name).read_text() for name in ("one_hooks_0", "two_hooks_0", "two_hooks_1"))
    assert one == two[0] == two[1]
    assert one.count("before step") == 5


def test_accumulation_under_two_processes_equals_one_process_of_the_joined_batch_in_its_weights_size(tmp_path):
    """Both end after the same steps, with the averaged weights of both processes equal by hash."""
    words = [*PLAIN, *DDP, "trainer.accumulate_grad_batches=3", "trainer.max_steps=6"]
    run = start(tmp_path / "run", *words)
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0, out
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert content["global_step"] == 6


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook"])
def test_strategies_that_start_processes_in_other_ways(strategy, tmp_path):
    run = start(tmp_path / "run", *PLAIN, f"trainer.strategy={strategy}", "trainer.devices=2", "data.batch_size=300")
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0, out
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_two_processes_train_both_stages_of_latent_diffusion(tmp_path):
    (tmp_path / "experiment").mkdir()
    short = "trainer: {max_steps: 2, val_check_interval: 2}"
    (tmp_path / "experiment" / "short.yaml").write_text(
        f"# @package _global_\ndefaults: [digits_autoencoder]\n{short}\n"
    )
    words = ["--config-dir", str(tmp_path), "experiment=digits_latent", "codec.experiment=short", "metrics=none"]
    words += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=2"]
    output(start(tmp_path / "run", *words, "trainer.val_check_interval=2", "callbacks.progress_bar=null"))
    assert Pretrained(tmp_path / "run" / "checkpoints" / "last.ckpt").sample(2).shape == (2, 1, 8, 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of classes of digits."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["data=digits", "model=unet", "model.channels=[8]", "model.blocks=1", "sampler.steps=3"]
    output(start(folder, *PLAIN, *words, "metrics=classifier", "metrics.cache=" + str(folder / "cache")))
    return folder / "checkpoints" / "last.ckpt"


LAUNCHES = {
    "one": (["{script}"], []),
    "fabric": (["{script}"], ["devices=2"]),
    "torchrun": (["-m", "torch.distributed.run", "--nproc_per_node=2", "{script}"], []),
}


def launched(way: str, script: str, *words: str) -> str:
    before, after = LAUNCHES[way]
    return output(python(*(word.format(script=script) for word in before), *words, *after, "device=cpu"))


def test_any_number_of_processes_draws_the_same_samples(trained, tmp_path):
    drawn = {}
    for way in LAUNCHES:
        out = launched(way, "scripts/sample.py", f"ckpt={trained}", "n=10", "batch_size=4", f"out={tmp_path / way}")
        assert out.count("10 samples in") == 1
        drawn[way] = np.load(tmp_path / way / "samples.npz")
    for way in ("fabric", "torchrun"):
        assert all(np.array_equal(drawn["one"][name], drawn[way][name]) for name in drawn["one"])


def test_any_number_of_processes_measures_the_same_numbers(trained, tmp_path):
    rows = {}
    for way in LAUNCHES:
        words = [f"ckpt={trained}", "n=24", "batch_size=10", "samplers=own", "steps=[2,3]", f"out={tmp_path / way}"]
        out = launched(way, "scripts/evaluate.py", *words)
        assert out.count("evaluation:") == 1
        table = list(csv.DictReader((tmp_path / way / "quality.csv").open()))
        rows[way] = [{name: value for name, value in row.items() if name != "seconds"} for row in table]
    assert rows["one"] == rows["fabric"] == rows["torchrun"]
    assert len(rows["one"]) == 3


def test_more_processes_than_devices_are_refused_in_one_line(trained, tmp_path):
    process = python("scripts/sample.py", f"ckpt={trained}", "devices=0", "device=cpu", f"out={tmp_path / 'out'}")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "error: devices=0" in out
    assert "Traceback" not in out


NODES = {
    "one machine": ([["--nproc_per_node=2"]], "trainer.devices=2"),
    "two machines": (
        [["--nnodes=2", f"--node_rank={k}", "--master_addr=127.0.0.1", "--master_port={port}"] for k in (0, 1)],
        "trainer.num_nodes=2",
    ),
}


@pytest.mark.parametrize("kind", NODES)
def test_torchrun_leaves_one_folder_and_the_losses_of_two_processes(kind, tmp_path):
    """As Lightning's own start of two processes; without a name for the folder."""
    port = free_port()
    launches, devices = NODES[kind]
    words = [*PLAIN, "trainer=ddp", "data.batch_size=300", "trainer.log_every_n_steps=1", "logger=csv"]
    expected = output(start(tmp_path / "plain", *words, "trainer.devices=2"))
    assert "2 x cpu" in expected
    torchrun = ["-m", "torch.distributed.run"]
    train = [str(ROOT / "train.py"), *words, "trainer.devices=1", devices]
    started = [
        python(*torchrun, *(word.format(port=port) for word in launch), *train, cwd=tmp_path) for launch in launches
    ]
    outs = [output(process) for process in started]
    assert "".join(outs).count("run folder:") == 1
    (folder,) = (tmp_path / "outputs").glob("*/*")
    assert column(folder, "train/loss") == column(tmp_path / "plain", "train/loss")
    assert len(list(folder.glob(".hydra*"))) == 1
