"""Data that change between two attempts at a run are noticed, whatever gives them."""

import json
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import BARE_RUN, composed
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.data import Digits, ImageFolder, Moons, facts_of
from litdiffusion.data.identity import Identity, change, rows_of
from litdiffusion.errors import UserError
from litdiffusion.runs.record import read_record
from litdiffusion.training.checkpoints import read_checkpoint

CUT = ["trainer.max_steps=2", "metrics=none"]
LONGER = ["trainer.max_steps=4", "metrics=none"]


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path, format="BMP")  # all files have one size


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for i in range(24):
        write(tmp_path / "set" / "ab"[i % 2] / f"{i}.bmp", 10 * i + 10)
    return tmp_path / "set"


def run(folder: Path, *overrides: str) -> None:
    train(composed(*BARE_RUN, "lr_schedule=constant", *overrides), Run(folder, folder.name))


def on_pictures(pictures: Path, *overrides: str) -> list[str]:
    net = ["model=unet", "model.channels=[8]", "model.blocks=1"]
    data = ["data=image_folder", f"data.path={pictures}", "data.image_size=8", "data.channels=1"]
    return [*net, *data, "data.batch_size=4", "data.val_size=4", *overrides]


def add(pictures: Path) -> None:
    write(pictures / "a" / "new.bmp", 77)


def remove(pictures: Path) -> None:
    (pictures / "a" / "4.bmp").unlink()


def alter(pictures: Path) -> None:
    write(pictures / "b" / "5.bmp", 199)


def rename(pictures: Path) -> None:
    (pictures / "a" / "4.bmp").rename(pictures / "a" / "44.bmp")


def rename_class(pictures: Path) -> None:
    (pictures / "b").rename(pictures / "c")


CHANGES = {
    add: ["24 -> 25 images", "a/new.bmp is new"],
    remove: ["24 -> 23 images", "a/4.bmp is gone"],
    alter: ["b/5.bmp is changed"],
    rename: ["a/4.bmp is gone", "a/44.bmp is new"],
    rename_class: ["b/1.bmp is gone (and 11 more)", "class 1 was b, is c"],
}


def test_a_set_that_is_decoded_on_access_is_known_by_names_and_sizes(pictures: Path):
    """Another memory limit is no change of the data, but what it can still see is named."""

    def identity(limit: float) -> Identity:
        settings = {"image_size": 8, "channels": 1, "batch_size": 4, "val_size": 4, "seed": 0}
        return ImageFolder(path=pictures, memory_limit_gb=limit, num_workers=0, **settings).identity()

    for then, now in ((2.0, 0.0), (0.0, 2.0)):
        before = identity(then)
        assert change(before.record(), before.rows, identity(now)) is None
    before = identity(2.0)
    rename(pictures)
    assert change(before.record(), before.rows, identity(0.0)) == "a/4.bmp is gone, a/44.bmp is new"


@pytest.mark.parametrize("how", CHANGES, ids=lambda how: how.__name__)
def test_what_changed_in_a_folder_is_named(how, pictures: Path):
    def identity() -> Identity:
        return ImageFolder(path=pictures, image_size=8, channels=1, batch_size=4, val_size=4, seed=0).identity()

    then = identity()
    record, rows = then.record(), rows_of(then.listed())
    assert change(record, rows, identity()) is None
    how(pictures)
    found = change(record, rows, identity())
    assert all(part in found for part in CHANGES[how])
    assert change(record, (), identity())  # without the list of files at least the counts or "other values"


def test_a_changed_folder_is_refused_in_one_line(pictures: Path, tmp_path: Path):
    run(tmp_path / "run", *on_pictures(pictures, *CUT))
    remove(pictures)
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", *on_pictures(pictures, *LONGER))
    message = str(error.value)
    assert "\n" not in message
    assert "24 -> 23 images, a/4.bmp is gone" in message
    assert "resume=false" in message
    assert read_record(tmp_path / "run").step == 2
    run(tmp_path / "run", *on_pictures(pictures, *LONGER, "allow_changed_data=true"))
    record = read_record(tmp_path / "run")
    assert (record.step, record.data["training"] + record.data["validation"]) == (4, 23)
    run(tmp_path / "run", *on_pictures(pictures, *CUT, "resume=false"))  # a new run beside it
    assert read_record(tmp_path / "run_2").data["training"] == 19


def test_a_streamed_folder_is_known_by_names_and_sizes(pictures: Path):
    def identity() -> Identity:
        settings = {"path": pictures, "image_size": 8, "memory_limit_gb": 0.0, "num_workers": 0}
        return ImageFolder(**settings, channels=1, batch_size=4, val_size=4, seed=0).identity()

    then = identity()
    with (pictures / "a" / "4.bmp").open("ab") as file:
        file.write(b"!")
    assert change(then.record(), then.rows, identity()) == "a/4.bmp is changed"


def test_a_run_without_a_record_of_its_data_is_resumed(pictures: Path, tmp_path: Path):
    run(tmp_path / "run", *on_pictures(pictures, *CUT))
    path = tmp_path / "run" / "run.json"
    content = json.loads(path.read_text())
    del content["data"], content["sha256"]  # as earlier versions wrote it
    path.write_text(json.dumps(content))
    run(tmp_path / "run", *on_pictures(pictures, *LONGER))
    assert read_record(tmp_path / "run").step == 4


class Foreign(L.LightningDataModule):
    """Another project's data module: ``count`` points, shuffled by its loader, or new ones at every reading."""

    def __init__(self, count: int = 40, moved: float = 0.0, random: bool = False):
        super().__init__()
        self.count, self.moved, self.random = count, moved, random

    def train_dataloader(self) -> DataLoader:
        points = np.random.default_rng(None if self.random else 0).normal(size=(self.count, 2)).astype(np.float32)
        points[0] += self.moved
        return DataLoader(TensorDataset(torch.from_numpy(points)), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.linspace(-1, 1, 16).view(8, 2)), batch_size=4)


def foreign() -> list[str]:
    toys = [f"~data.{key}" for key in ("size", "val_size", "batch_size", "seed", "standardise")]
    return ["data._target_=test_data_identity.Foreign", *toys]


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"count": 39}, "48 -> 47 items"), ({"moved": 1.0}, r"as many items \(48\), but other values")],
)
def test_changed_data_of_another_project_are_refused(changed, message, tmp_path: Path, monkeypatch):
    folder = tmp_path / "run"
    run(folder, *foreign(), *CUT)
    run(folder, *foreign(), "trainer.max_steps=3", "metrics=none")  # the same data in another order
    # The settings stay the same, so that only the data tell.
    defaults = {"count": 40, "moved": 0.0, "random": False} | changed
    monkeypatch.setattr(Foreign.__init__, "__defaults__", tuple(defaults.values()))
    with pytest.raises(UserError, match=message):
        run(folder, *foreign(), *LONGER)


def test_data_that_are_new_at_every_reading_are_warned_of(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(Foreign.__init__, "__defaults__", (40, 0.0, True))
    run(tmp_path / "run", *foreign(), *CUT)
    run(tmp_path / "run", *foreign(), *LONGER)
    assert "a change of the data cannot be noticed" in capsys.readouterr().out


def test_a_stream_without_a_length_has_the_identity_of_its_first_items():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.linspace(0, 1, 40).view(20, 2))

    facts = facts_of(DataLoader(Stream(), batch_size=4))
    assert (facts.identity().training, facts.identity()) == (
        20,
        facts_of(DataLoader(Stream(), batch_size=4)).identity(),
    )


def test_labels_order_and_seed_belong_to_the_identity():
    x, labels = torch.linspace(0, 1, 40).view(20, 2), torch.arange(20) % 2
    other = labels.clone()
    other[3] = 1 - other[3]
    one, two = (facts_of(DataLoader(TensorDataset(x, k), batch_size=4)).identity().digest for k in (labels, other))
    assert one != two
    moons = {"size": 50, "batch_size": 4, "val_size": 5}
    assert Moons(seed=0, **moons).identity() == Moons(seed=0, **moons).identity()
    assert Moons(seed=0, **moons).identity().digest != Moons(seed=1, **moons).identity().digest
    digits = Digits(batch_size=4, seed=0)
    assert digits.identity().digest == digits.fingerprint()


def test_a_run_that_goes_on_with_changed_data_keeps_what_it_has_measured(tmp_path):
    """The weights belong to the constants of the codec and to sigma_data; other data must not change these."""
    table, x = tmp_path / "points.csv", np.random.default_rng(0).normal((100, -50), (30, 5), (60, 2))
    words = ["data=table", f"data.path={table}", "data.batch_size=10", "recipe=edm"]
    np.savetxt(table, x)
    run(tmp_path / "run", *CUT, *words)
    before = read_record(tmp_path / "run").measured
    np.savetxt(table, 2 * x + 7)
    with pytest.raises(UserError, match="have changed since it was started: as many items"):
        run(tmp_path / "run", *LONGER, *words)
    run(tmp_path / "run", *LONGER, "allow_changed_data=true", *words)
    codec = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["litdiffusion"]["config"]["codec"]
    assert codec["mean"] == before["data_mean"] == pytest.approx(x.mean(axis=0).tolist(), rel=0.1)
    assert read_record(tmp_path / "run").measured == before
    run(tmp_path / "new", *CUT, *words)
    after = read_record(tmp_path / "new").measured["data_mean"]
    assert after == pytest.approx((2 * x + 7).mean(axis=0).tolist(), rel=0.1)
