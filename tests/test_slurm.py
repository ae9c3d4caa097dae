"""A job that Slurm requeues, without Slurm: its variables, its signal, and a script in the place of scontrol."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import BARE_RUN, composed
from launching import PLAIN, free_port, output, python, state
from lottery.outcome import fingerprint

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.config import resolvers
from litdiffusion.config.trainer import check_srun
from litdiffusion.errors import UserError
from litdiffusion.runs.record import read_record
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import newest_checkpoint, read_checkpoint

ONE = {
    **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "cifar", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1"},
    **{"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    "SLURM_NODEID": "0",
}
RUN = [*BARE_RUN, "metrics=none", "data.size=600", "model.hidden=16", "trainer.max_steps=12", "logger=csv"]
RUN += ["trainer.val_check_interval=4", "trainer.log_every_n_steps=2", "trainer=slurm", "trainer.devices=1", "name=job"]


@pytest.fixture
def scontrol(tmp_path, monkeypatch) -> Path:
    """Puts a script on the PATH that writes its words into the returned file, and makes this process one of srun."""
    script, calls = tmp_path / "bin" / "scontrol", tmp_path / "calls"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    for name, value in ONE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("MASTER_PORT", free_port())
    return calls


@pytest.fixture
def signalled(monkeypatch):
    """Makes a hook of the module raise Slurm's signal in this process at a step, once."""

    def at(step: int, hook: str) -> None:
        honest, sent = getattr(DiffusionModule, hook), []

        def hooked(self, *args, **kwargs):
            if self.global_step == step and not sent:
                sent.append(step)
                signal.raise_signal(signal.SIGUSR1)
            return honest(self, *args, **kwargs)

        monkeypatch.setattr(DiffusionModule, hook, hooked)

    return at


def run(folder: Path, *more: str) -> int:
    try:
        train(composed(*RUN, *more), Run(folder, "job", overrides=(*RUN, *more)))
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.parametrize(("step", "hook", "saved"), [(5, "training_step", 6), (8, "validation_step", 8)])
def test_a_requeued_job_goes_on_bit_for_bit(step, hook, saved, signalled, scontrol, tmp_path, capfd):
    assert run(tmp_path / "whole") == 0
    signalled(step, hook)
    folder = tmp_path / "run"
    assert run(folder) == 128 + signal.SIGUSR1
    assert scontrol.read_text() == "requeue 4711\n"
    assert read_checkpoint(folder / "hpc_ckpt_1.ckpt")["global_step"] == saved
    assert (read_record(folder).status, read_record(folder).step) == ("stopped", saved)
    out, err = capfd.readouterr()
    assert f"stopped by SIGUSR1. Last good checkpoint: {folder}/hpc_ckpt_1.ckpt" in out
    assert err.count("SIGUSR1: saves after this step") == 1
    assert run(folder) == 0
    assert f"from step {saved} (attempt 2)" in capfd.readouterr().out
    assert not list(folder.glob("hpc_ckpt_*"))  # last.ckpt is newer
    assert fingerprint(folder) == fingerprint(tmp_path / "whole")


def test_an_old_checkpoint_of_slurm_never_wins(signalled, scontrol, tmp_path, capfd):
    folder = tmp_path / "run"
    signalled(2, "training_step")
    assert run(folder) == 128 + signal.SIGUSR1
    old = shutil.copy(folder / "hpc_ckpt_1.ckpt", tmp_path / "old.ckpt")
    assert run(folder, "trainer.max_steps=8") == 0
    shutil.copy(old, folder / "hpc_ckpt_1.ckpt")
    path, lines = newest_checkpoint(folder, usable=bool)
    assert path == folder / "checkpoints" / "last.ckpt"
    assert lines == [f"{folder}/hpc_ckpt_1.ckpt (step 3) is older than {path} (step 8), which is used"]
    (folder / "hpc_ckpt_1.ckpt").write_bytes(b"torn")
    assert newest_checkpoint(folder, usable=bool)[0] == path
    assert (folder / "requeued_1.ckpt.damaged").exists()  # under a name that Lightning does not take for a checkpoint


def test_a_signal_after_the_last_step_does_not_requeue(signalled, scontrol, tmp_path, capfd):
    signalled(12, "on_train_end")
    assert run(tmp_path / "run") == 0
    assert "SIGUSR1: the last step is done, so the job is not requeued" in capfd.readouterr().err
    assert not scontrol.exists()


def test_slurm_is_refused_outside_a_job_and_with_another_place_for_checkpoints(scontrol, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="goes on from the run's folder"):
        run(tmp_path / "run", f"trainer.default_root_dir={tmp_path}")
    with pytest.warns(UserWarning, match="name=my_run lets it go on"):
        run(tmp_path / "run", "name=null", "trainer.max_steps=1")
    monkeypatch.delenv("SLURM_NTASKS")
    with pytest.raises(UserError, match="processes that srun has started"):
        run(tmp_path / "run")
    check_srun([])
    resolvers.forget_folders()


@pytest.mark.slow
def test_two_processes_of_srun_are_requeued_together(scontrol, tmp_path):
    """Only one of them is signalled, as if the other one were late; they share the folder of the job."""
    words = [*PLAIN, "trainer=slurm", "trainer.devices=2", "data.batch_size=300", "trainer.log_every_n_steps=1"]
    words += ["trainer.max_steps=400", "trainer.val_check_interval=400", "save_every=null", "logger=csv"]

    def srun(cwd: Path, **more: str) -> list:
        cwd.mkdir(exist_ok=True)
        environment = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "MASTER_PORT": free_port(), **more}
        train = [str(Path(__file__).parent.parent / "train.py"), *words]
        return [python(*train, cwd=cwd, **environment, SLURM_PROCID=str(k), SLURM_LOCALID=str(k)) for k in range(2)]

    whole = [output(process) for process in srun(tmp_path / "whole")]
    assert "".join(whole).count("run folder:") == 1
    processes, folder = srun(tmp_path / "job"), tmp_path / "job" / "outputs" / "slurm-4711"
    rows = folder / "metrics.csv"
    while not (rows.exists() and len(rows.read_text().splitlines()) > 3):
        assert processes[0].poll() is None, processes[0].communicate()
    processes[1].send_signal(signal.SIGUSR1)
    outs = [output(processes[0], 128 + signal.SIGUSR1), output(processes[1], 0)]
    assert scontrol.read_text() == "requeue 4711\n"
    assert "".join(outs).count("hpc_ckpt_1.ckpt; continue with the same command") == 1
    saved = read_checkpoint(folder / "hpc_ckpt_1.ckpt")["global_step"]
    assert 0 < saved < 400
    again = "".join(output(process) for process in srun(tmp_path / "job"))
    assert again.count(f"from step {saved} (attempt 2)") == 1
    kept = "outputs/slurm-4711/checkpoints/last.ckpt"
    first, second = (state(tmp_path / name / kept) for name in ("whole", "job"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
