"""Sets of the library datasets: from folders that it saved, and as streams; no network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BARE_RUN, TINY
from PIL import Image

from litdiffusion.data import HuggingFaceSet
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained

datasets = pytest.importorskip("datasets", reason="an extra of the package")
SIZES = ["data.val_size=6", "data.batch_size=4", "trainer.accelerator=cpu", "metrics=none"]
NET = ["model=unet", "model.channels=[8]", "model.blocks=1", "logger=none", "lr_schedule=constant", "threads=1"]
NET += [*BARE_RUN[len(TINY) :], "callbacks.condition_sweep=null", "trainer.log_every_n_steps=2"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def pictures(n: int, start: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(start + i).integers(0, 256, (8, 8)).astype(np.uint8) for i in range(n)]


def table(n: int, start: int = 0, **columns: object) -> "datasets.Dataset":
    """n grey images with classes cat and dog in turn, and further columns."""
    kinds = {"picture": datasets.Image(), "animal": datasets.ClassLabel(names=["cat", "dog"])}
    rows = {"picture": [Image.fromarray(x) for x in pictures(n, start)], "animal": [i % 2 for i in range(n)]}
    features = datasets.Features(kinds | {name: kind for name, (kind, _) in columns.items()})
    return datasets.Dataset.from_dict(rows | {name: values for name, (_, values) in columns.items()}, features=features)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder of the splits train and test, as ``save_to_disk`` writes it."""
    datasets.DatasetDict(train=table(30), test=table(8, start=100)).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def opened(path: Path | None, **changes: object) -> HuggingFaceSet:
    data = HuggingFaceSet(**{"path": path, "batch_size": 4, "val_size": 6, "seed": 0} | changes)
    data.load()
    return data


def refusal(path: Path | None, **changes: object) -> str:
    with pytest.raises(UserError) as error:
        opened(path, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_set_gives_its_images_classes_and_splits(saved, capsys):
    data = opened(saved)
    out = capsys.readouterr().out
    assert f"data.path={saved}: images in picture, classes in animal" in out
    assert "30 images in 2 classes: 0 = cat, 1 = dog" in out
    truth = {x.tobytes(): i % 2 for i, x in enumerate(pictures(30))}
    found = [(x.numpy().tobytes(), int(k)) for part in (data.train, data.val) for x, k in zip(*part[:2], strict=True)]
    assert dict(found) == truth
    assert len(found) == 30
    assert (data.shape, data.num_classes, list(data.class_names)) == ((1, 8, 8), 2, ["cat", "dog"])
    assert torch.equal(data.test().data[:, 0], torch.tensor(np.stack(pictures(8, start=100))))
    assert len(opened(saved, split="train[:50%]+test").train.data) == 15 + 8 - 6
    named = opened(saved, val_split="test", test_split=None, val_size=100)
    assert (len(named.train.data), len(named.val.data)) == (30, 8)
    assert named.test() is named.val


def test_what_is_larger_than_memory_gives_the_same_batches(saved):
    kept, mapped = opened(saved), opened(saved, memory_limit_gb=0, num_workers=0)
    assert isinstance(kept.train.data, torch.Tensor)
    assert not isinstance(mapped.train.data, torch.Tensor)
    for ours, theirs in zip(kept.train_dataloader(), mapped.train_dataloader(), strict=True):
        assert torch.equal(ours.data, theirs.data)
        assert torch.equal(ours.class_label, theirs.class_label)
    assert opened(saved, memory_limit_gb=0).fingerprint() == mapped.fingerprint()
    assert opened(saved, memory_limit_gb=0, val_size=5).fingerprint() != mapped.fingerprint()


def test_folders_of_parquet_and_pictures_are_read_as_the_library_reads_them(tmp_path):
    table(12).to_parquet(tmp_path / "parquet" / "train.parquet")
    assert opened(tmp_path / "parquet").shape == (1, 8, 8)
    assert len(opened(tmp_path / "parquet", split="train[:10]").train.data) == 4
    assert "cannot be read (ValueError" in refusal(tmp_path / "parquet", split="tran[:10]")
    for i, x in enumerate(pictures(8)):
        path = tmp_path / "folder" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
    folder = opened(tmp_path / "folder", val_size=2)
    assert list(folder.class_names) == ["a", "b"]


def test_columns_of_texts_and_numbers_become_classes(tmp_path):
    more = {"kind": (datasets.Value("string"), ["b", "a"] * 6), "digit": (datasets.Value("int64"), [7, 3, 5] * 4)}
    table(12, **more).save_to_disk(tmp_path / "set")
    assert opened(tmp_path / "set", label_column="kind").class_names == ("a", "b")
    assert opened(tmp_path / "set", label_column="digit").class_names == ("3", "5", "7")
    assert opened(tmp_path / "set", label_column=None).num_classes == 0


def test_unlabelled_images_make_a_set_without_classes(tmp_path, capsys):
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    rows = {"image": [Image.fromarray(x) for x in pictures(12)], "label": [-1] * 12}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(tmp_path / "set")
    data = opened(tmp_path / "set")
    assert (data.num_classes, data.train.class_label) == (0, None)
    assert "no image has a class label in label" in capsys.readouterr().out
    rows["label"][3] = 1
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(tmp_path / "mixed")
    assert "11 of 12 images have no class label" in refusal(tmp_path / "mixed")


def test_every_mistake_is_one_line(saved, tmp_path, monkeypatch):
    assert "data.split=tran" in (text := refusal(saved, split="tran"))
    assert "train, test; did you mean train?" in text
    assert "did you mean picture?" in refusal(saved, image_column="pictures")
    assert "holds int64, not images; take picture" in refusal(saved, image_column="animal")
    assert "did you mean animal?" in refusal(saved, label_column="animals")
    assert "there is no such folder" in refusal(tmp_path / "nothing")
    assert "needs data.name=USER/SET on the hub" in refusal(None)
    assert "set data.image_column to one of picture, other" in refusal(_twice(tmp_path))
    assert "no column of images" in refusal(_without_images(tmp_path))
    assert "is no set of the hub" in refusal(None, name="imagefolder")
    assert "is no name of the hub" in refusal(None, name="a/b/c")
    monkeypatch.chdir(tmp_path)
    assert "give files of this machine by data.path" in refusal(None, name="saved")
    assert "the hub is not reached" in refusal(None, name="nobody/nothing")
    gone = datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: _raise(gone))
    assert "gated dataset on the Hub.); check the name, and for a private or gated one log in" in refusal(
        None, name="a/b"
    )
    script = RuntimeError("Dataset scripts are no longer supported, but found b.py")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: _raise(script))
    assert "read by a script of its own, which is not run here" in refusal(None, name="a/b")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert "pip install datasets" in refusal(saved)


def _raise(error: Exception) -> None:
    raise error


def _twice(folder: Path) -> Path:
    table(4, other=(datasets.Image(), [Image.fromarray(x) for x in pictures(4)])).save_to_disk(folder / "twice")
    return folder / "twice"


def _without_images(folder: Path) -> Path:
    datasets.Dataset.from_dict({"x": [1, 2, 3]}).save_to_disk(folder / "none")
    return folder / "none"


def test_a_stream_gives_every_item_once_in_an_order_of_its_own_for_each_epoch(saved, capsys):
    data = opened(saved, streaming=True, shuffle_buffer=8)
    out = capsys.readouterr().out
    assert "a stream of an unknown number of training images: pictures, facts and metrics are of 24 of them" in out
    assert torch.equal(data.val.data[:, 0], torch.tensor(np.stack(pictures(6))))
    assert not data.complete
    epochs = []
    for epoch in (0, 1, 0):
        data._position = lambda epoch=epoch: (epoch, 0)
        epochs.append(torch.cat([batch.data for batch in data.train_dataloader()]))
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    rows = [{x.numpy().tobytes() for x in epoch} for epoch in epochs]
    assert rows[0] == rows[1] == {x.tobytes() for x in pictures(30)[6:]}
    assert len(data.test().data) == 8


def test_two_processes_share_the_batches_of_a_stream(saved):
    one, two = opened(saved, streaming=True, batch_size=8), opened(saved, streaming=True, batch_size=4)
    parts = []
    for rank in range(2):
        two._rank_and_world = lambda rank=rank: (rank, 2)
        parts.append([batch.data for batch in two.train_dataloader()])
    for whole, *halves in zip(one.train_dataloader(), *parts, strict=True):
        assert torch.equal(whole.data[0::2], halves[0])
        assert torch.equal(whole.data[1::2], halves[1])


def test_what_a_stream_cannot_hold_is_refused(tmp_path, saved):
    table(12, kind=(datasets.Value("string"), ["b", "a"] * 6)).save_to_disk(tmp_path / "set")
    assert "does not say which classes follow" in refusal(tmp_path / "set", label_column="kind", streaming=True)
    assert "data.val_size=30 leaves no item" in refusal(saved, val_size=30, streaming=True)
    data = opened(saved, streaming=True, batch_size=25)
    with pytest.raises(UserError, match=r"data\.batch_size=25 .* more than the stream holds"):
        list(data.train_dataloader())


@pytest.mark.parametrize("kind", ["saved", pytest.param("parquet", marks=pytest.mark.slow)])
def test_a_stream_that_was_stopped_goes_on_bit_for_bit(kind, saved, tmp_path, command):
    path = saved
    if kind == "parquet":
        path = tmp_path / "parquet"
        table(30).to_parquet(path / "train.parquet")
    words = ["data=huggingface", f"data.path={path}", "data.streaming=true", "data.shuffle_buffer=8", *NET, *SIZES]
    words += ["trainer.val_check_interval=4"]
    for name, steps in (("whole", 10), ("parts", 4), ("parts", 10)):
        status, out, err = command("train.py", *words, f"name={name}", f"trainer.max_steps={steps}")
        assert status == 0, err
    assert "reading past the 16 items of epoch 0 that were trained on" in out
    weights = [
        torch.load(tmp_path / "outputs" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_a_model_knows_the_names_of_its_classes_and_finds_its_data_by_the_users_path(saved, tmp_path, command):
    words = [
        "data=huggingface",
        f"data.path={saved}",
        *NET,
        *SIZES,
        "trainer.max_steps=1",
        "trainer.val_check_interval=1",
        "hydra.run.dir=run",
    ]
    status, _, err = command("train.py", *words)
    assert status == 0, err
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    asked = ["class_label=[dog,cat]", "n=3", "sampler=ddim", "steps=2", "out=drawn"]
    status, _, err = command("scripts/sample.py", str(checkpoint), *asked)
    assert status == 0, err
    assert np.load(tmp_path / "drawn" / "samples.npz")["class_labels"].tolist() == [1, 0, 1]
    model = Pretrained(checkpoint)
    assert model.data(path=str(saved)).name == "saved"
    with pytest.raises(UserError, match="data_path=/my/data"):
        model.data()
