"""Decoded images in a memory-mapped file: written once, continued after a kill, verified, the same as in memory."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BARE_RUN, composed
from PIL import Image

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.data import ImageFolder
from litdiffusion.data import decoded as decoded_module
from litdiffusion.data.decoded import COMPLETE, IMAGES, decoded
from litdiffusion.errors import UserError
from litdiffusion.training.checkpoints import read_checkpoint

COUNT, SHAPE = 40, (3, 8, 8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def folder(path: Path, **changes: object) -> ImageFolder:
    settings = {"image_size": 8, "batch_size": 4, "val_size": 8, "seed": 0, "memory_limit_gb": 0, "num_workers": 0}
    return ImageFolder(path=path, **(settings | changes))


def ready(data: ImageFolder) -> ImageFolder:
    data.prepare_data()
    data.setup("fit")
    return data


def image(i: int) -> torch.Tensor:
    return torch.full(SHAPE, i, dtype=torch.uint8)


def test_mapped_images_are_those_in_memory(pictures, tmp_path, capsys):
    memory, mapped = folder(pictures, memory_limit_gb=1), folder(pictures, cache=tmp_path)
    memory.load()
    ready(mapped)
    for ours, theirs in zip((mapped.train, mapped.val), (memory.train, memory.val), strict=True):
        assert torch.equal(ours.data, theirs.data)
    assert "decoding" in capsys.readouterr().out
    (file,) = tmp_path.glob(f"*/{IMAGES}")
    assert file.stat().st_size == COUNT * 3 * 8 * 8
    for batches in zip(mapped.train_dataloader(), memory.train_dataloader(), strict=True):
        assert torch.equal(*(batch.data for batch in batches))
    assert mapped.fingerprint() == folder(pictures).fingerprint()


def test_the_file_is_written_once_and_changed_pictures_have_another(pictures, tmp_path, monkeypatch, capsys):
    own = tmp_path / "pictures"
    shutil.copytree(pictures, own)
    ready(folder(own, cache=tmp_path / "cache"))
    monkeypatch.setattr(decoded_module, "_write", None)  # nothing is left to write
    ready(folder(own, cache=tmp_path / "cache", batch_size=2, seed=7))
    monkeypatch.undo()
    capsys.readouterr()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(own / "0.png")
    changed = ready(folder(own, cache=tmp_path / "cache"))
    assert "decoding" in capsys.readouterr().out
    assert any((part.data.flatten(1) == 0).all(1).any() for part in (changed.train, changed.val))
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("tail", [b"", b"half an image"])
def test_a_killed_writer_is_continued(tmp_path, monkeypatch, tail):
    monkeypatch.setattr(decoded_module, "CHUNK", 8)
    asked: list[int] = []

    def killed(i: int) -> torch.Tensor:
        if i == 20:
            raise KeyboardInterrupt
        return image(i)

    def noted(i: int) -> torch.Tensor:
        asked.append(i)
        return image(i)

    with pytest.raises(KeyboardInterrupt):
        decoded(tmp_path, COUNT, SHAPE, killed, "set")
    assert not (tmp_path / COMPLETE).exists()
    with (tmp_path / IMAGES).open("ab") as file:
        file.write(tail)  # what was on its way when the power failed
    found = decoded(tmp_path, COUNT, SHAPE, noted, "set")
    assert sorted(asked) == list(range(16, COUNT))
    assert torch.equal(found, torch.stack([image(i) for i in range(COUNT)]))


@pytest.mark.parametrize("damage", ["byte", "short"])
def test_a_damaged_file_is_named_and_written_anew(damage, tmp_path):
    decoded(tmp_path, COUNT, SHAPE, image, "set")
    content = bytearray((tmp_path / IMAGES).read_bytes())
    if damage == "byte":
        content[1000] ^= 1
    else:
        del content[-7:]
    (tmp_path / IMAGES).write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged; its images are decoded anew"):
        found = decoded(tmp_path, COUNT, SHAPE, image, "set")
    assert torch.equal(found, torch.stack([image(i) for i in range(COUNT)]))


def test_a_copy_is_verified_and_kept(tmp_path):
    decoded(tmp_path / "a", COUNT, SHAPE, image, "set")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "b" / IMAGES, ns=(1, 1))
    assert torch.equal(decoded(tmp_path / "b", COUNT, SHAPE, None, "set")[7], image(7))


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1))
    with pytest.raises(UserError, match=r"need 0\.0 GB in .* set data\.cache to a folder on a larger disk"):
        decoded(tmp_path, COUNT, SHAPE, image, "set")
    with pytest.raises(UserError, match=r"cannot be written to .* set data\.cache=null"):
        decoded(Path(os.devnull) / "x", COUNT, SHAPE, image, "set")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_line(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"has no locks .* set data.cache to a folder on a local disk"):
        decoded(tmp_path / "set", 1, SHAPE, lambda _: torch.zeros(SHAPE, dtype=torch.uint8), "set")
    assert not (tmp_path / "set" / IMAGES).exists()


def test_a_run_on_the_file_equals_one_on_memory(pictures, tmp_path):
    words = [*BARE_RUN, "data=image_folder", f"data.path={pictures}", "data.image_size=8", "data.batch_size=4"]
    words += ["data.val_size=8", "model=unet", "model.channels=[8]", "model.blocks=1", "metrics=none"]
    kinds = {"memory": [], "file": ["data.memory_limit_gb=0", f"data.cache={tmp_path / 'cache'}"]}
    for name, more in kinds.items():
        train(composed(*words, *more), Run(tmp_path / name, "run"))
    states = [read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in kinds]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
