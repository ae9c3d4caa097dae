"""Processes that torchrun or Slurm has started agree on one folder, before they can talk."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import TCPStore

from litdiffusion.config import resolvers
from litdiffusion.config.checks import check_processes
from litdiffusion.config.launched import agreed_folder, meet_local_tasks
from litdiffusion.config.resolvers import run_folder, run_subdir
from litdiffusion.errors import UserError


@pytest.fixture(autouse=True)
def _forget():
    resolvers.forget_folders()
    yield
    resolvers.forget_folders()


@pytest.fixture
def torchrun(monkeypatch):
    """A store as torchrun's agent has it; returns a function that makes this process the one of a rank."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    values = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield lambda rank: monkeypatch.setenv("RANK", str(rank))
    del store


def test_all_processes_of_torchrun_take_the_folder_of_the_first(torchrun):
    torchrun(0)
    assert run_folder(None, True, "outputs/first") == "outputs/first"
    torchrun(1)
    assert run_folder(None, True, "outputs/second") == "outputs/first"
    torchrun(0)  # started again after a fault: it goes on where it was
    assert run_folder(None, True, "outputs/third") == "outputs/first"


def test_a_new_run_beside_a_named_one_is_counted_once(torchrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    torchrun(0)
    assert run_folder("mine", False, "unnamed") == "outputs/mine_2"
    (tmp_path / "outputs" / "mine_2").mkdir()
    resolvers.forget_folders()
    torchrun(1)
    assert run_folder("mine", False, "unnamed") == "outputs/mine_2"


def test_processes_of_srun_share_the_folder_of_their_job(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_JOB_ID": "77"}.items():
        monkeypatch.setenv(name, value)
    assert run_folder(None, True, "outputs/now") == "outputs/slurm-77"
    assert run_folder("mine", True, "outputs/now") == "outputs/mine"
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # a shell, not a job
    assert agreed_folder("outputs/now", named=False) == "outputs/now"
    monkeypatch.delenv("SLURM_JOB_NAME")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert agreed_folder("outputs/now", named=False) == "outputs/now"


def test_only_the_first_process_writes_hydra_s_files(monkeypatch):
    assert run_subdir(None) == ".hydra"
    monkeypatch.setenv("RANK", "1")
    assert run_subdir(None) is None


def test_processes_of_submitit_s_local_executor_meet_and_the_first_one_writes(monkeypatch):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    meet_local_tasks()
    assert not any(name in os.environ for name in names)
    told = {"NTASKS": "2", "GLOBALID": "1", "LOCALID": "1", "JOB_ID": "6782"}
    for name, value in told.items():
        monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)
    meet_local_tasks()
    assert [os.environ[name] for name in names[:4]] == ["1", "1", "2", "127.0.0.1"]
    assert run_subdir(None) is None
    first = os.environ["MASTER_PORT"]
    monkeypatch.setenv("SUBMITIT_LOCAL_GLOBALID", "0")
    meet_local_tasks()
    assert os.environ["MASTER_PORT"] == first


def test_a_job_of_a_sweep_takes_only_processes_that_its_launcher_has_started(monkeypatch):
    def trainer(world: int, external: bool) -> SimpleNamespace:
        environment = SimpleNamespace(creates_processes_externally=external)
        strategy = SimpleNamespace(root_device=torch.device("cpu"), cluster_environment=environment)
        return SimpleNamespace(strategy=strategy, num_devices=world, world_size=world)

    check_processes(trainer(2, external=True), in_sweep=True)
    check_processes(trainer(2, external=False), in_sweep=False)
    with pytest.raises(UserError, match=r"must be started by the launcher: .* hydra.launcher.tasks_per_node=2"):
        check_processes(trainer(2, external=False), in_sweep=True)
    monkeypatch.setenv("SUBMITIT_LOCAL_NTASKS", "2")
    check_processes(trainer(2, external=True), in_sweep=True)
    with pytest.raises(UserError, match=r"tasks_per_node=2 starts 2 processes for a job, which trains on 1"):
        check_processes(trainer(1, external=True), in_sweep=True)
