"""Faults of the machine and of the data: one line that says what and where, and the same command goes on afterwards."""

import csv
import errno
import fcntl
import json
import os
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import BARE_RUN, composed
from torch.utils.data import DataLoader, Dataset

from litdiffusion.build import Run
from litdiffusion.commands.failures import data_failure, file_failure
from litdiffusion.commands.training import train
from litdiffusion.training.checkpoints import read_checkpoint

WORDS = [word for word in BARE_RUN if word != "logger=none"]
WORDS += ["data.size=200", "data.val_size=50", "data.batch_size=20", "model.hidden=8", "trainer.max_steps=24"]
WORDS += [
    "trainer.val_check_interval=8",
    "trainer.log_every_n_steps=4",
    "save_every=4",
    "logger=csv",
    "lr_schedule=constant",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with a run of 24 steps, and with the same run after 16 of them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps in (("whole", 24), ("half", 16)):
        train(composed(*WORDS, f"trainer.max_steps={steps}"), Run(folder / name))
    return folder


@pytest.fixture
def half(runs, command, tmp_path):
    """A run that stopped after 16 of its 24 steps, and the function that goes on with it."""
    shutil.copytree(runs / "half", tmp_path / "run")
    return tmp_path / "run", lambda *words: command("train.py", *WORDS, f"hydra.run.dir={tmp_path / 'run'}", *words)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"]


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def test_intact_rows_are_continued_without_a_word(half):
    folder, go = half
    before = rows(folder)
    status, out, err = go()
    assert (status, "metrics.csv" in out + err) == (0, False)
    assert rows(folder)[: len(before)] == before
    assert len(rows(folder)) == len(before) + 3
    assert not list(folder.glob("*.damaged"))


def _delete(path: Path) -> None:
    path.unlink()


def _cut_rows(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))


def _change_a_cell(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].replace("1", "7"), *lines[3:]]))


def _shift_rows(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))


def _garble(path: Path) -> None:
    path.write_bytes(os.urandom(997))


def _add_cells(path: Path) -> None:
    path.write_text("\n".join(f"{line},5,6" for line in path.read_text().splitlines()) + "\n")


def _lose_the_header(path: Path) -> None:
    path.write_text("\0\xff".join(path.read_text().splitlines(keepends=True)))


def _make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "kept", "said"),
    [
        (_delete, 0, "0 of 6 rows can be read; it was deleted"),
        (_cut_rows, 2, "2 of 6 rows"),
        (_change_a_cell, 6, "6 of 6 rows"),
        pytest.param(_shift_rows, 6, "6 of 6 rows", marks=pytest.mark.slow),
        (_garble, 0, "0 of 6 rows"),
        pytest.param(_add_cells, None, "of 6 rows", marks=pytest.mark.slow),
        pytest.param(_lose_the_header, None, "of 6 rows", marks=pytest.mark.slow),
        (_make_a_folder, 0, "0 of 6 rows"),
    ],
)
def test_rows_that_are_not_as_the_run_left_them_are_told(half, harm, kept, said):
    folder, go = half
    total = len(rows(folder))
    assert total == 6  # four of training, two of validation
    harm(folder / "metrics.csv")
    status, out, err = go()
    assert status == 0, err
    (line,) = (line for line in out.splitlines() if line.startswith("warning: "))
    assert "metrics.csv is not as the run left it at step 16" in line
    assert said in line.replace(") ", "; ").replace(")", "")
    assert (folder / "metrics.csv.damaged").exists() == (harm is not _delete)
    if kept is not None:  # nothing is invented
        assert len(rows(folder)) == kept + 3


def test_a_checkpoint_that_is_a_folder_is_set_aside(half):
    folder, go = half
    (folder / "checkpoints/last.ckpt").unlink()
    (folder / "checkpoints/last.ckpt").mkdir()
    status, out, _ = go()
    assert status == 0
    assert "last.ckpt is a folder; renamed to last.ckpt.damaged, an older one is used" in out
    assert (folder / "checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize(
    "name", ["run.json", *(pytest.param(n, marks=pytest.mark.slow) for n in (".lock", "hparams.yaml", "checkpoints"))]
)
def test_a_folder_or_file_in_the_place_of_another_is_named(half, name, tmp_path):
    folder, go = half
    place, kept = folder / name, tmp_path / "kept"
    place.rename(kept)
    place.mkdir() if name != "checkpoints" else place.touch()
    status, _, err = go()
    assert status in (1, 2)
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert f"{place} cannot be written" in line
    assert "move it away" in line
    place.rmdir() if name != "checkpoints" else place.unlink()
    kept.rename(place)
    status, _, err = go()
    assert (status, record(folder)["status"], record(folder)["step"]) == (0, "complete", 24), err


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_warned_of(half, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    folder, go = half
    monkeypatch.setattr(fcntl, "flock", refuse)
    status, _, err = go()
    assert (status, record(folder)["step"]) == (0, 24)
    assert err.count("has no locks") == 1


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("metrics.csv", errno.ENOSPC),
        ("last.ckpt", errno.ENOSPC),
        *(pytest.param(name, errno.ENOSPC, marks=pytest.mark.slow) for name in ("run.json", "hparams.yaml")),
        *(pytest.param("last.ckpt", n, marks=pytest.mark.slow) for n in (errno.EMFILE, errno.EROFS, errno.EIO)),
    ],
)
def test_a_file_that_cannot_be_written_is_named_and_the_run_goes_on_as_it_was(half, runs, monkeypatch, number, name):
    folder, go = half
    honest = Path.open

    def refuse(self, mode="r", *args, **kwargs):
        if name in self.name and any(letter in mode for letter in "wax"):
            raise OSError(number, os.strerror(number))
        return honest(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        if name == "hparams.yaml":  # written by Lightning

            def fail(*_, **__):
                raise OSError(number, os.strerror(number))

            patch.setattr("lightning.pytorch.loggers.csv_logs.save_hparams_to_yaml", fail)
        status, _, err = go()
    assert status == 1
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert f"{name} cannot be" in line
    assert os.strerror(number) in line
    if name != "run.json":
        assert record(folder)["status"] == "failed"
    assert not list(folder.rglob("*.part"))
    status, _, err = go()
    assert status == 0, err
    ours, theirs = weights(folder), weights(runs / "whole")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert rows(folder) == rows(runs / "whole")


class Items(Dataset):
    """Numbers; item 40 has the fault while the file ``armed`` exists."""

    def __init__(self, fault: str | None, armed: str):
        self.fault, self.armed = fault, Path(armed)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 40 and self.armed.exists():
            if self.fault == "error":
                raise ValueError("a broken record\nand a second line")
            if self.fault == "file":
                Path("/nowhere/picture.png").read_bytes()
            if self.fault == "shape":
                return torch.zeros(3)
        return torch.randn(2, generator=torch.Generator().manual_seed(index))


class Odd(L.LightningDataModule):
    """Loaders with a fault in one batch, which is not there while the run is built."""

    def __init__(self, armed: str, fault: str | None = None, part: str = "train", num_workers: int = 0):
        super().__init__()
        self.armed, self.fault, self.part, self.num_workers = armed, fault, part, num_workers

    def _collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        if self.fault in ("empty", "wide", "text") and self.trainer is not None and Path(self.armed).exists():
            return {"empty": torch.zeros(0, 2), "wide": torch.zeros(len(items), 3), "text": "text"}[self.fault]
        return torch.stack(items)

    def _loader(self, part: str) -> DataLoader:
        fault = self.fault if part == self.part and self.trainer is not None else None
        collate = self._collate if part == self.part else None
        return DataLoader(Items(fault, self.armed), 8, num_workers=self.num_workers, collate_fn=collate)

    def train_dataloader(self) -> DataLoader:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")


@pytest.mark.parametrize(
    ("fault", "workers", "said"),
    [
        ("error", 1, "the data cannot be loaded: ValueError: a broken record ("),
        pytest.param(
            "file",
            1,
            "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/picture.png' (",
            marks=pytest.mark.slow,
        ),
        pytest.param("shape", 0, "the data cannot be loaded: RuntimeError: stack expects", marks=pytest.mark.slow),
        pytest.param("empty", 0, "batch 0 is empty; let the loader leave it out", marks=pytest.mark.slow),
        ("wide", 0, "batch 0 has items of shape (3,), but the model takes (2,)"),
        pytest.param("text", 0, "but the loader returns str", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("part", ["train", pytest.param("val", marks=pytest.mark.slow)])
def test_a_fault_of_the_data_is_one_line_and_the_run_goes_on_once_it_is_mended(
    command, tmp_path, fault, workers, said, part
):
    armed = tmp_path / "armed"
    data = f"data={{_target_:test_faults.Odd,armed:{armed},fault:{fault},part:{part},num_workers:{workers}}}"
    words = [*(word for word in WORDS if not word.startswith("data.")), "trusted=[test_faults]", data]
    words = [*words, "trainer.val_check_interval=6"]
    armed.touch()
    status, _, err = command("train.py", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert status in (1, 2)
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert said in line
    assert "Traceback" not in err
    if fault in ("error", "file"):
        assert f"{__file__}:" in line
        assert "in __getitem__" in line
    failed = record(tmp_path / "run")
    assert failed["status"] == "failed"
    assert failed["error"] in line
    armed.unlink()
    status, _, err = command("train.py", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert (status, record(tmp_path / "run")["step"]) == (0, 24), err


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError, FileNotFoundError])
def test_a_bug_of_the_program_keeps_its_traceback(kind):
    with pytest.raises(kind) as bug:
        raise kind("x")
    assert (data_failure(bug.value), file_failure(bug.value)) == (None, None)
