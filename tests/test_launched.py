"""Processes that torchrun or Slurm has started agree on one folder, before they can talk."""

import pytest
from torch.distributed import TCPStore

from litdiffusion.config import resolvers
from litdiffusion.config.launched import agreed_folder
from litdiffusion.config.resolvers import run_folder, run_subdir


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
