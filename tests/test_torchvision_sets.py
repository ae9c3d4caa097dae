"""Sets of torchvision by the names of their classes, without a network."""

import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUIET, TINY_UNET
from fakes import idx, write_mnist

from litdiffusion.data import TorchvisionSet
from litdiffusion.data.images import class_names_of
from litdiffusion.errors import UserError

FAKE = {"size": 30, "image_size": [3, 8, 8], "num_classes": 4}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def named(name: str, root: Path = Path(), **changes: object) -> TorchvisionSet:
    return TorchvisionSet(**{"name": name, "root": root, "batch_size": 4, "val_size": 5, "seed": 0} | changes)


def refusal(name: str, root: Path = Path(), **changes: object) -> str:
    with pytest.raises(UserError) as error:
        named(name, root, **changes).load()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_set_without_parts_gives_the_images_and_numbers_of_its_class():
    from torchvision.datasets import FakeData

    data = named("FakeData", options=FAKE)
    data.load()
    truth = FakeData(30, (3, 8, 8), 4)
    images = {np.asarray(image).transpose(2, 0, 1).tobytes(): label for image, label in truth}
    found = [(x.numpy().tobytes(), int(k)) for part in (data.train, data.val) for x, k in zip(*part[:2], strict=True)]
    assert dict(found) == images
    assert (data.shape, data.num_classes, data.name) == ((3, 8, 8), 4, "fakedata")
    assert data.test() is data.val


def test_both_parts_of_a_set_are_told_apart_by_train(tmp_path: Path, capsys):
    write_mnist(tmp_path, "FashionMNIST", train=40, test=12)
    data = named("FashionMNIST", tmp_path)
    data.load()
    assert (len(data.train.data), len(data.val.data), len(data.test().data)) == (35, 5, 12)
    assert data.class_names[0] == "T-shirt/top"
    assert "40 images in 10 classes: 0 = T-shirt/top, 1 = Trouser" in capsys.readouterr().out


def test_options_choose_the_split_of_emnist(tmp_path: Path):
    folder = tmp_path / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 26), ("test", 5)):
        (folder / f"emnist-letters-{part}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (count, 28, 28))))
        (folder / f"emnist-letters-{part}-labels-idx1-ubyte").write_bytes(idx(1 + np.arange(count) % 26))
    data = named("EMNIST", tmp_path, options={"split": "letters"})
    data.load()
    assert (data.num_classes, data.class_names[1], data.class_names[26]) == (27, "a", "z")
    assert len(data.test().data) == 5
    assert "emnist-digits" not in refusal("EMNIST", tmp_path, options={"split": "byclass"})


def test_missing_files_end_in_one_line_with_the_folder(tmp_path: Path):
    for name in ("QMNIST", "SVHN", "USPS", "STL10", "CIFAR100"):
        assert f"put intact copies into {tmp_path}" in refusal(name, tmp_path)


def test_wrong_names_options_and_items_are_refused(tmp_path: Path):
    assert "did you mean QMNIST?" in refusal("QMNST")
    assert "has no such set" in refusal("DatasetFolder")
    assert "data.options.splitt is not an option of EMNIST; did you mean split?" in refusal(
        "EMNIST", options={"splitt": "letters"}
    )
    assert "and no path" in refusal("EMNIST", options={"split": "../x"})
    assert "data.options.root is not an option" in refusal("FakeData", options={"root": "x"})
    assert "more than data.memory_limit_gb" in refusal("FakeData", options=FAKE, memory_limit_gb=1e-6)


def test_images_are_resized_on_request_and_that_is_said(capsys):
    data = named("FakeData", options=FAKE, image_size=4, channels=1)
    data.load()
    assert data.shape == (1, 4, 4)
    out = capsys.readouterr().out
    assert "30 pictures resized to cover 4x4" in out
    assert "30 pictures in colour become grey" in out


def test_the_yaml_trains_and_float32_has_its_reason(command, monkeypatch):
    monkeypatch.setattr("litdiffusion.training.hardware.fast_bf16", lambda accelerator: False)
    options = "data.options={size: 40, image_size: [3, 8, 8], num_classes: 4}"
    sizes = ["data.val_size=8", "data.batch_size=8", "trainer.max_steps=2", "trainer.accelerator=cpu"]
    chosen = ["data=torchvision", "data.name=FakeData", options, *sizes, "conditional=true", "metrics=none"]
    status, out, err = command("train.py", *TINY_UNET, *QUIET, *chosen, "hydra.run.dir=run")
    assert status == 0, err
    assert "32 training items of shape (3, 8, 8)" in out
    assert "on 1 x cpu in 32-true (this machine has no fast bfloat16)" in out


def test_names_of_classes_do_not_repeat_their_numbers():
    for classes, names in (
        (["0 - zero", "1 - one"], ("zero", "one")),
        (["1 - one", "10"], ("1 - one", "10")),
        ([("cat", "felis"), "dog"], ("cat", "dog")),
        ([3, 4], ()),
    ):
        assert class_names_of(SimpleNamespace(classes=classes)) == names
