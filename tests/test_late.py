"""What a GPU's host must not do: read a value in a training step. Verdicts come one step late, and change no bit."""

import csv
import re

import lightning as L
import pytest
import torch
from conftest import TINY, composed
from test_health import QUIET
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from litdiffusion.build import Run, build
from litdiffusion.commands.training import train
from litdiffusion.data.batch import Batch
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.training import class_labels, gradient, late
from litdiffusion.training.checkpoints import read_checkpoint
from litdiffusion.training.joined import Joined

WORDS = [*TINY, *QUIET, "callbacks.progress_bar=null"]
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")


class Reads(TorchDispatchMode):
    """Collects the operations for which a host would wait for its GPU: values read, and copies between devices."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = str(operation)
        if any(word in name for word in READS):
            self.found.append(name)
        out = operation(*args, **(kwargs or {}))
        moved = isinstance(out, torch.Tensor) and "_to_copy" in name and args[0].device != out.device
        self.found += [f"{args[0].device} to {out.device}"] if moved else []
        return out


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Treats values of the CPU as those of a GPU: they are read one step late."""
    for module in (late, gradient, class_labels):
        monkeypatch.setattr(module, "is_read_at_once", lambda device: False)


def on_fake_gpu(module: torch.nn.Module) -> None:
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, value in own.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    own[name] = torch.nn.Parameter(fake) if own is part._parameters else fake


@pytest.mark.skipif(torch.__version__ < "2.11", reason="older versions of torch fake no GPU without a driver")
@pytest.mark.parametrize(
    "words",
    [
        "data=digits model=unet model.channels=[8,16]",
        "data=digits model=dit recipe=edm",
        "data=spiral objective=hybrid learned_variance=true",
        "data=spiral times=loss_aware",
        "data=spiral objective=stable_target",
        "data=spiral recipe=flow",
        "data=ramp recipe=vp",
        "data=two_gaussians recipe=ncsn",
    ],
)
def test_the_loss_is_computed_without_a_word_from_the_host(words, tmp_path):
    """On tensors of a GPU that hold no values: reading one would be an error, and so would be a copy."""
    experiment = build(composed(*TINY, *words.split()), Run(tmp_path))
    module, batch = experiment.module, next(iter(experiment.data.train_dataloader()))
    module.trainer = experiment.trainer
    module.seed_step = lambda batch_idx: Joined()
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_fake_gpu(module)
        module._device = torch.device("cuda:0")
        batch = Batch(*(None if x is None else torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in batch))
        module.late.check = lambda bad, act: None  # its event needs a real GPU
        module.training_step(batch, 0)  # tables of the schedule are copied at the first step
        with Reads() as reads:
            loss = module.training_step(batch, 0)
    assert loss.device.type == "cuda"
    assert reads.found == []


class InSteps(L.Callback):
    """Collects what is read from the start of a step to its end, without the log."""

    def __init__(self):
        self.reads = Reads()

    def on_train_batch_start(self, *args):
        self.reads.__enter__()

    def on_train_batch_end(self, *args):
        self.reads.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("words", "checks"), [("data=spiral", 1), ("data=digits model=mlp conditional=true", 2), ("times=loss_aware", 1)]
)
@pytest.mark.parametrize("gpu", [True, False])
def test_a_whole_step_reads_only_the_verdicts_of_the_step_before(words, checks, gpu, request, tmp_path):
    """Three steps with a row of the log after the second one, which is written outside: one verdict is left to read."""
    if gpu:
        request.getfixturevalue("as_on_a_gpu")
    experiment, watch = build(composed(*WORDS, "trainer.max_steps=3", *words.split()), Run(tmp_path)), InSteps()
    experiment.trainer.callbacks.append(watch)
    experiment.trainer.fit(experiment.module, experiment.data)
    assert watch.reads.found == ["aten._local_scalar_dense.default"] * checks * (1 if gpu else 3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_left_out_by_the_device_changes_as_little_as_one_left_out_by_the_host(
    optimizer, poisoned, request, tmp_path, capfd
):
    """Two steps in the middle, and one whose verdict comes after the last step."""
    words = [*WORDS, "trainer.max_steps=8", "trainer.val_check_interval=8", "skip_nonfinite=3"]
    results = []
    for gpu in (False, True):
        poisoned(3, 4, 7)
        if gpu:
            request.getfixturevalue("as_on_a_gpu")
        folder = tmp_path / str(gpu)
        train(composed(*words, f"optimizer={optimizer}"), Run(folder))
        with (folder / "metrics.csv").open() as file:
            rows = [{k: v for k, v in row.items() if k[:5] != "time/"} for row in csv.DictReader(file)]
        told = [line for line in capfd.readouterr().err.splitlines() if "was skipped" in line]
        results.append((read_checkpoint(folder / "checkpoints" / "last.ckpt"), rows, told))
    (one, rows, told), (other, late_rows, late_told) = results
    assert len(told) == 3
    assert late_told == told
    assert late_rows == rows
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())
    moments, others = (each["optimizer_states"][0]["state"] for each in (one, other))
    assert all(torch.equal(value, others[i][name]) for i, own in moments.items() for name, value in own.items())


def test_a_run_that_breaks_off_one_step_late_leaves_only_good_checkpoints(poisoned, as_on_a_gpu, tmp_path):
    poisoned(3)
    with pytest.raises(TrainingError, match=r"non-finite at step 3 \(the largest gradient is that of net"):
        train(composed(*WORDS, "trainer.max_steps=8", "trainer.val_check_interval=4"), Run(tmp_path / "run"))
    files = list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    assert files
    for path in files:
        assert all(value.isfinite().all() for value in read_checkpoint(path)["state_dict"].values())


@pytest.mark.parametrize("gpu", [True, False])
def test_a_class_label_out_of_range_ends_the_run(gpu, request, tmp_path):
    if gpu:
        request.getfixturevalue("as_on_a_gpu")
    words = [*WORDS, "data=digits", "model=mlp", "conditional=true", "trainer.max_steps=4"]
    experiment = build(composed(*words), Run(tmp_path))
    experiment.data.setup("fit")
    experiment.data.train.class_label[:] = 10
    with pytest.raises(UserError, match="class labels must be from 0 to 9, but a batch has 10 to 10"):
        experiment.trainer.fit(experiment.module, experiment.data)
    assert experiment.trainer.global_step == (1 if gpu else 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("words", ["data=spiral", "data=digits model=unet"])
def test_cuda_itself_finds_no_wait_in_a_step(words, tmp_path):
    class Strict(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.cuda.set_sync_debug_mode("error" if batch_idx > 1 else "default")

        def on_train_batch_end(self, *args):
            torch.cuda.set_sync_debug_mode("default")

    words = [word for word in WORDS if not re.match(r"trainer\.(accelerator|max_steps)", word)] + words.split()
    experiment = build(composed(*words, "trainer.accelerator=gpu", "trainer.max_steps=6"), Run(tmp_path))
    experiment.trainer.callbacks.append(Strict())
    experiment.trainer.fit(experiment.module, experiment.data)
    assert experiment.trainer.global_step == 6
