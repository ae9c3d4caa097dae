"""Two processes over gloo: the losses of one process, one that dies, jobs of a sweep. Slow: each imports everything."""

import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from launching import PLAIN, column, output, python, start, state

from litdiffusion.runs.record import read_record

pytestmark = pytest.mark.slow
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
KINDS = {
    "points": ["data.batch_size=BATCH", "times=loss_aware", "times.warmup=1", "times.bins=4"],
    "images": [
        *("data=digits", "model=unet", "model.channels=[8]", "model.blocks=1", "data.batch_size=BATCH"),
        *("conditional=true", "data.augment={flip: true, shift: 1}", "trainer.accumulate_grad_batches=2"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one_with_the_joined_batch(kind, tmp_path):
    words = [*PLAIN, "trainer.max_steps=12", "trainer.val_check_interval=12", "trainer.log_every_n_steps=3"]
    words += ["metrics=none", "callbacks.live_quality=null", "logger=csv", "seed=3"]
    for name, batch, more in (("one", 64, []), ("two", 32, TWO)):
        output(start(tmp_path / name, *words, *(word.replace("BATCH", str(batch)) for word in KINDS[kind]), *more))
    for name in ("train/loss", "train/gradient_norm", "val/loss"):
        one, two = (torch.tensor(column(tmp_path / run, name)) for run in ("one", "two"))
        assert len(one) > 0
        torch.testing.assert_close(two, one, rtol=2e-5, atol=0)
    one, two = (state(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


DYING = '''
import os
from pathlib import Path
import lightning as L

class Dying(L.Callback):
    """Writes the process ids; process 0 is busy at a step until it is ended."""
    def __init__(self, folder, step):
        self.folder, self.step = Path(folder), step
    def on_train_start(self, trainer, module):
        (self.folder / f"pid_{trainer.global_rank}").write_text(str(os.getpid()))
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step == self.step and trainer.is_global_zero:
            (self.folder / "drawing").touch()
            while (self.folder / "drawing").exists():
                pass
'''
STARTS = {"lightning": [], "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node=2"]}


@pytest.mark.parametrize(
    ("way", "step"),
    [("lightning", None), ("lightning", 7), ("torchrun", None)],
    ids=["lightning", "lightning while the first draws", "torchrun"],
)
def test_a_process_that_is_killed_ends_all_with_one_message(way, step, tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    words = [*PLAIN, *TWO, "data.batch_size=100", "trainer.max_steps=1000000", "trainer.val_check_interval=1000000"]
    words += ["save_every=5", f"hydra.run.dir={tmp_path}/run", "metrics=none", "trusted=[dying]"]
    words += [f"+callbacks.dying={{_target_: dying.Dying, folder: {tmp_path}, step: {step or 'null'}}}"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = python(*STARTS[way], "train.py", *words, PYTHONPATH=path)
    ready = tmp_path / ("drawing" if step else "run/checkpoints/last.ckpt")
    while not ready.exists():
        assert process.poll() is None, process.communicate()
    os.kill(int((tmp_path / "pid_1").read_text()), signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    assert out.count("error: ") == 1
    # Where both are busy with an exchange, its error may come before the news of the process.
    assert ("process 1 of this run ended by SIGKILL" if step else "of this run ended") in out
    assert f"Last good checkpoint: {tmp_path}/run/checkpoints/last.ckpt" in out
    assert read_record(tmp_path / "run").status == "failed"
    assert not Path("/proc", (tmp_path / "pid_0").read_text()).exists()


def test_a_sweep_with_jobs_of_two_processes_equals_its_jobs_one_by_one(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the sweep extra")
    words = [*PLAIN, *TWO, "data.batch_size=300", "trainer.log_every_n_steps=1", "logger=csv", "metrics=none"]
    words += ["callbacks.final_samples=null", "callbacks.live_quality=null", "callbacks.live_likelihood=null"]
    train = str(ROOT / "train.py")
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"]
    out = output(python(train, "-m", "seed=1,2", "sweep=all", *launcher, *words, cwd=tmp_path))
    assert out.count("2 of 2 jobs done") == 1
    together = sorted(path.parent for path in (tmp_path / "outputs/sweeps/all").glob("*/run.json"))
    assert len(together) == 2
    for seed, folder in enumerate(together, start=1):
        output(python(train, f"seed={seed}", *words, f"hydra.run.dir={tmp_path}/alone_{seed}", cwd=tmp_path))
        alone = tmp_path / f"alone_{seed}"
        assert column(folder, "train/loss") == column(alone, "train/loss")
        assert read_record(folder).metrics == read_record(alone).metrics
        files = {path.name for path in folder.rglob("*") if path.is_file()}
        assert files == {path.name for path in alone.rglob("*") if path.is_file()} - {"train_ddp_process_1.log"}
        assert "GLOBAL_RANK: 1" not in (folder / "train.log").read_text()


def test_a_sweep_whose_jobs_would_start_their_processes_themselves_is_refused(tmp_path):
    words = ["-m", "seed=1", "sweep=all", *PLAIN, *TWO, "data.batch_size=300"]
    out, _ = python(str(ROOT / "train.py"), *words, cwd=tmp_path).communicate(timeout=300)
    assert "must be started by the launcher: hydra/launcher=submitit_local" in out
    assert "Traceback" not in out
