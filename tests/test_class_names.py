"""Names of classes: from the data through checkpoint and export to pictures, scripts and messages."""

import json
import shutil
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import BARE_RUN, composed
from omegaconf import DictConfig
from PIL import Image
from tables import points, write_csv
from torch.utils.data import DataLoader, TensorDataset

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.config.identity import check_fits
from litdiffusion.config.received import LONGEST_NAME, checked_description
from litdiffusion.data import facts_of
from litdiffusion.diffusion.samplers import Draws
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import VectorQuality
from litdiffusion.plots import image_grid
from litdiffusion.plots.images import in_rows
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import read_checkpoint
from litdiffusion.training.class_labels import class_called, classes_of_model

NAMES = ["bird", "cat", "dog"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("animals") / "set"
    random = np.random.default_rng(0)
    for k in range(30):
        path = root / NAMES[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def checkpoint(pictures: Path, tmp_path_factory) -> Path:
    """A conditional run on three classes."""
    folder = tmp_path_factory.mktemp("run") / "run"
    net = [
        "model=unet",
        "model.channels=[8]",
        "model.blocks=1",
        "schedule=cosine",
        "schedule.steps=6",
        "callbacks.final_samples.images=6",
    ]
    data = ["data=image_folder", f"data.path={pictures}", "data.image_size=8", "data.channels=1", "data.batch_size=4"]
    callbacks = [word for word in BARE_RUN if "trajectory" not in word and "final_samples" not in word]
    cfg = composed(*callbacks, *net, *data, "data.val_size=6", "metrics=none", "conditional=true")
    train(cfg, Run(folder, "run"))
    return folder / "checkpoints" / "last.ckpt"


def test_checkpoint_and_export_hold_the_names(checkpoint: Path, tmp_path: Path):
    assert read_checkpoint(checkpoint)["litdiffusion"]["class_names"] == NAMES
    folder = export(checkpoint, tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["class_names"] == NAMES
    for path in (checkpoint, folder):
        pretrained = Pretrained(path)
        assert pretrained.class_names == NAMES
        assert pretrained.class_labels(5, ["dog", "bird"]).tolist() == [2, 0, 2, 0, 2]
        assert pretrained.class_labels(3, "CAT").tolist() == [1, 1, 1]
        assert torch.equal(pretrained.sample(2, class_label="cat"), pretrained.sample(2, class_label=1))
    restored = DiffusionModule.load_from_checkpoint(checkpoint)
    assert restored.class_names == restored.description["class_names"] == NAMES


def test_every_script_takes_names(checkpoint: Path, pictures: Path, tmp_path: Path, command):
    common = [f"ckpt={checkpoint}"]
    for label, expected in (("cat", [1] * 4), ("[cat,2]", [1, 2, 1, 2])):
        out = tmp_path / f"samples{label}"
        status, _, err = command("scripts/sample.py", *common, "n=4", f"class_label={label}", f"out='{out}'")
        assert status == 0, err
        with np.load(out / "samples.npz") as content:
            assert content["class_labels"].tolist() == expected
            assert content["class_names"].tolist() == NAMES
    common.append(f"data_path={pictures}")
    nats = {}
    for label in ("cat", "null"):
        status, out, err = command(
            "scripts/likelihood.py", *common, "n=4", f"class_label={label}", f"out={tmp_path}/l{label}"
        )
        assert status == 0, err
        nats[label] = (tmp_path / f"l{label}" / "likelihood.csv").read_text()
    assert nats["cat"] != nats["null"]
    drawn = {}
    for label in ("dog", "null"):
        few = ["n=2", "samples=1", "steps=2", "resample=1"]
        status, _, err = command(
            "scripts/inpaint.py", *common, *few, f"class_label={label}", f"out={tmp_path}/i{label}"
        )
        assert status == 0, err
        with np.load(tmp_path / f"i{label}" / "inpainting.npz") as content:
            drawn[label] = content["samples"]
    assert not np.array_equal(drawn["dog"], drawn["null"])
    for script in ("sample", "likelihood", "inpaint"):
        status, _, err = command(f"scripts/{script}.py", *common[: 1 if script == "sample" else 2], "class_label=dgo")
        assert status != 0
        assert "names of classes (bird, cat, dog), got dgo; did you mean dog?" in err
        assert err.count("\n") == 1


def test_a_number_that_names_another_class_is_not_guessed():
    assert class_called(1, ["0", "1", "2"], 3) == 1
    assert class_called("2", ["1", "2", "3"], 3) == 1
    assert class_called(30, ["10", "20", "30"], 3) == 2
    with pytest.raises(UserError, match="number of class 2 and the name of class number 0"):
        class_called(1, ["1", "2", "3"], 3)
    with pytest.raises(UserError, match="whole numbers from 0 to 2, got 3"):
        class_called(3, [], 3)
    for wrong in (True, 1.0, None, -1):
        with pytest.raises(UserError, match="class_label must be"):
            class_called(wrong, NAMES, 3)


def test_names_of_a_strange_checkpoint_are_short_plain_texts(checkpoint: Path):
    description = read_checkpoint(checkpoint)["litdiffusion"]
    for wrong in (
        ["a", "b"],
        ["a", "b", 3],
        ["a", "b", {"_target_": "os.system"}],
        ["a", "b", "\x1b[2J"],
        ["a", "b", "line\nline"],
        ["a", "b", ""],
        ["a", "b", "x" * (LONGEST_NAME + 1)],
        "abc",
    ):
        with pytest.raises(UserError, match="holds no model"):
            checked_description(description | {"class_names": wrong}, "x.ckpt")
    without = {key: value for key, value in description.items() if key != "class_names"}
    assert checked_description(without, "x.ckpt").class_names == []


def test_pictures_show_the_names():
    images = torch.zeros(6, 1, 8, 8)
    plain, named = image_grid(images, 3), image_grid(images, 3, captions=NAMES * 2)
    assert named.height > plain.height
    assert named.tobytes() != image_grid(images, 3, captions=["bird", "cat", "fox"] * 2).tobytes()
    assert in_rows(NAMES * 2) == "in turn: bird, cat, dog"
    assert in_rows(["cat", "dog", "dog"]) == "row by row: cat, dog, dog"
    mixed = image_grid(images, 2, captions=NAMES * 2)  # two columns cannot have one class each
    assert mixed.tobytes() != image_grid(images, 2, captions=["bird", "cat", "fox"] * 2).tobytes()


def test_the_run_itself_shows_them(checkpoint: Path):
    pictures = checkpoint.parents[1] / "pictures"
    with Image.open(pictures / "samples.png") as found:
        assert found.height > 2 * found.width / 3 + 40  # two rows of three, and the names above them
    assert (pictures / "trajectory_step_000004.png").is_file()


def test_names_that_a_module_declares_are_taken_and_checked(capsys):
    class Foreign(L.LightningDataModule):
        class_names = NAMES

        def train_dataloader(self) -> DataLoader:
            return DataLoader(TensorDataset(torch.rand(20, 2), torch.arange(20) % 3), batch_size=5)

    facts = facts_of(Foreign())
    assert (facts.class_names, facts.num_classes) == (tuple(NAMES), 3)
    assert "20 items in 3 classes: 0 = bird, 1 = cat, 2 = dog" in capsys.readouterr().out
    Foreign.class_names = NAMES[:2]
    with pytest.raises(UserError, match="declares 2 class_names for 3 classes"):
        facts_of(Foreign())
    Foreign.class_names = "abc"
    with pytest.raises(UserError, match="must be a list of texts"):
        facts_of(Foreign())


# ---- data whose classes are others than the model's, or in another order ----


def animals(path: Path, *kinds: str) -> Path:
    """A table of 60 points whose kinds are these in turn."""
    return write_csv(path, points(60), "x,y,kind", [kinds[i % len(kinds)] for i in range(60)])


@pytest.fixture(scope="module")
def of_points(tmp_path_factory) -> Path:
    """A conditional run on a table of cats (class 0) and dogs (class 1)."""
    folder = tmp_path_factory.mktemp("points")
    train(of_kinds(folder / "t.csv", "cat", "dog"), Run(folder / "run", "run"))
    return folder / "run" / "checkpoints" / "last.ckpt"


def of_kinds(path: Path, *kinds: str, steps: int = 4, more: tuple[str, ...] = ("conditional=true",)) -> DictConfig:
    """The config of a run on a table of these kinds."""
    data = ["data=table", f"data.path={animals(path, *kinds)}", "data.label_column=kind", "data.batch_size=16"]
    net = ["model.hidden=16", "schedule=cosine", "schedule.steps=6", "optimizer.lr=0.05", f"trainer.max_steps={steps}"]
    return composed(*BARE_RUN, *data, *net, "metrics.distances=[wasserstein]", "lr_schedule=constant", *more)


def test_classes_of_data_are_the_classes_of_the_model_of_the_same_name():
    labels = torch.tensor([0, 1, 1, 0])
    assert classes_of_model(labels, ["dog", "cat"], NAMES, 3).tolist() == [2, 1, 1, 2]
    assert classes_of_model(labels, ["ant", "dog", "fox"], ["dog", "ant"], 2).tolist() == [1, 0, 0, 1]  # no fox here
    assert classes_of_model(labels.int(), NAMES, NAMES, 3).tolist() == labels.tolist()
    assert classes_of_model(labels, ["x", "x"], ["x", "x"], 2).tolist() == labels.tolist()
    for names in ([], NAMES):  # by number, where one side has no names
        assert classes_of_model(labels + 1, names, [] if names else NAMES, 3).tolist() == [1, 2, 2, 1]
        with pytest.raises(UserError, match=r"the class 3, which the model does not know"):
            classes_of_model(labels + 2, names, [] if names else NAMES, 3)
    for names, word in (
        (["cat", "Dog"], r"the class Dog, .* \(its classes: bird, cat, dog\)"),
        (["cat"], "the class 1"),
    ):
        with pytest.raises(UserError, match=word) as error:
            classes_of_model(labels, names, NAMES, 3)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="the class crane, which several classes of the model are called"):
        classes_of_model(labels, ["crane", "dog"], ["crane", "crane", "dog"], 3)
    with pytest.raises(UserError, match="the class -1, which the model does not know"):
        classes_of_model(labels - 1, ["dog", "cat"], NAMES, 3)


@pytest.mark.parametrize(("kinds", "numbers"), [(["dog"], [1]), (["cat"], [0]), (["cat", "dog"], None)])
def test_likelihoods_are_those_of_the_class_of_that_name(of_points, kinds, numbers, tmp_path, command):
    common = ["scripts/likelihood.py", f"ckpt={of_points}", f"data_path={animals(tmp_path / 'new.csv', *kinds)}"]
    nats = {}
    for label in ("null", "cat", "dog"):
        status, _, err = command(*common, "n=6", f"class_label={label}", f"out={tmp_path}/{label}")
        assert status == 0, err
        nats[label] = (tmp_path / label / "likelihood.csv").read_text()
    assert nats["cat"] != nats["dog"]
    assert [nats["null"] == nats[label] for label in ("cat", "dog")] == [numbers == [0], numbers == [1]]


def test_inpainting_shows_the_class_of_that_name(checkpoint, pictures, tmp_path, command):
    shutil.copytree(pictures / "dog", tmp_path / "dogs" / "dog")
    drawn = {}
    for label in ("null", "dog", "bird"):
        few = ["n=2", "samples=1", "steps=2", f"class_label={label}", f"out={tmp_path}/{label}"]
        status, _, err = command("scripts/inpaint.py", f"ckpt={checkpoint}", f"data_path={tmp_path / 'dogs'}", *few)
        assert status == 0, err
        with np.load(tmp_path / label / "inpainting.npz") as content:
            drawn[label] = content["samples"]
    assert np.array_equal(drawn["null"], drawn["dog"])
    assert not np.array_equal(drawn["null"], drawn["bird"])


def test_an_evaluation_draws_the_classes_of_its_data_and_measures_them_as_the_data_count_them(
    of_points, tmp_path, command, monkeypatch
):
    drawn, measured = [], []
    draw, measure = Draws.block, VectorQuality.measure

    def seen_draw(self, index, size, seed, class_labels):
        drawn.append(class_labels)
        return draw(self, index, size, seed, class_labels)

    def seen_measure(self, samples, *args, **settings):
        measured.extend(args[2:])
        return measure(self, samples, *args, **settings)

    monkeypatch.setattr(Draws, "block", seen_draw)
    monkeypatch.setattr(VectorQuality, "measure", seen_measure)
    common = ["scripts/evaluate.py", f"ckpt={of_points}", "samplers=ddim", "steps=2", "n=20"]
    status, _, err = command(*common, f"data_path={animals(tmp_path / 'new.csv', 'dog')}", f"out={tmp_path}/report")
    assert status == 0, err
    assert drawn[0].unique().tolist() == [1]
    assert measured[0].unique().tolist() == [0]


def test_data_without_the_classes_of_the_model_are_refused_in_one_line(
    of_points, checkpoint, pictures, tmp_path, command
):
    foxes = animals(tmp_path / "new.csv", "dog", "fox")
    plain = tmp_path / "plain"
    shutil.copytree(pictures, plain)
    shutil.copy(pictures / "cat" / "1.png", plain / "1.png")
    fox, none = (
        "which the model does not know (its classes: cat, dog)",
        "plain has no class labels, which this model needs: 1 picture beside the class folders",
    )
    cases = [
        ("likelihood", of_points, foxes, fox),
        ("evaluate", of_points, foxes, fox),
        ("likelihood", checkpoint, plain, none),
        ("inpaint", checkpoint, plain, none),
    ]
    for script, ckpt, path, line in cases:
        status, _, err = command(f"scripts/{script}.py", f"ckpt={ckpt}", f"data_path={path}", f"out={tmp_path}/out")
        assert (status, err.count("\n")) == (2, 1), err
        assert line in err
        assert line != none or "class_label=bird" in err
        assert not list((tmp_path / "out").glob("*"))
    status, _, err = command(
        *("scripts/likelihood.py", f"ckpt={checkpoint}", f"data_path={plain}"),
        *("class_label=bird", "n=2", f"out={tmp_path}/out"),
    )
    assert status == 0, err


def test_an_evaluation_on_data_without_class_labels_says_what_to_give(of_points, checkpoint):
    pretrained = Pretrained(checkpoint)
    facts = facts_of(DataLoader(TensorDataset(torch.rand(20, 1, 8, 8)), batch_size=5))
    with pytest.raises(
        UserError,
        match=r"dataloader has no class labels, which this model needs; give one class .* by class_label=bird",
    ):
        pretrained.class_labels_of(facts, 5)
    assert pretrained.class_labels_of(facts, 5, "cat").tolist() == [1] * 5


# ---- a run that goes on with data of other classes ----


@pytest.mark.parametrize(
    ("kinds", "line"),
    [
        (["ant", "cat"], "trained with the classes cat, dog, this run has ant, cat (class 0 was cat, is ant)"),
        (["cat", "cow"], "this run has cat, cow (class 1 was dog, is cow)"),
        (["cat", "dog", "emu"], "this run has cat, dog, emu (class 2 was none, is emu)"),
    ],
)
def test_a_checkpoint_is_not_trained_on_with_other_classes(of_points, kinds, line, tmp_path):
    start = ("conditional=true", f"ckpt_path={of_points}")
    with pytest.raises(UserError) as error:
        train(of_kinds(tmp_path / "t.csv", *kinds, steps=6, more=start), Run(tmp_path / "run"))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_is_trained_on_with_the_same_classes_and_without_classes_with_any(of_points, tmp_path):
    start = ("conditional=true", f"ckpt_path={of_points}")
    train(of_kinds(tmp_path / "t.csv", "dog", "cat", steps=6, more=start), Run(tmp_path / "run"))
    train(of_kinds(tmp_path / "a.csv", "cat", "dog", more=()), Run(tmp_path / "plain"))
    start = (f"ckpt_path={tmp_path}/plain/checkpoints/last.ckpt",)
    train(of_kinds(tmp_path / "b.csv", "ant", "cat", steps=6, more=start), Run(tmp_path / "next"))


def test_the_same_classes_in_another_order_are_refused_too(checkpoint):
    content, (module, other) = read_checkpoint(checkpoint), map(DiffusionModule.load_from_checkpoint, [checkpoint] * 2)
    check_fits(content, module, checkpoint)
    other.description["class_names"] = ["cat", "bird", "dog"]
    with pytest.raises(UserError, match=r"the classes bird, cat, dog, this run has cat, bird, dog \(class 0 was bird"):
        check_fits(content, other, checkpoint)
    del other.description["class_names"]  # as a module of one's own script, and earlier checkpoints
    check_fits(content, other, checkpoint)


def test_changed_data_are_not_allowed_to_change_the_meaning_of_a_class(tmp_path):
    train(of_kinds(tmp_path / "t.csv", "cat", "dog"), Run(tmp_path / "run"))
    with pytest.raises(UserError, match=r"have changed since it was started: class 0 was cat, is ant; restore them"):
        train(of_kinds(tmp_path / "t.csv", "ant", "cat", steps=6), Run(tmp_path / "run"))
    longer = {"steps": 6, "more": ("conditional=true", "allow_changed_data=true")}
    with pytest.raises(
        UserError, match=r"run was trained with the classes cat, dog, this run has ant, cat .*resume=false"
    ):
        train(of_kinds(tmp_path / "t.csv", "ant", "cat", **longer), Run(tmp_path / "run"))
    train(of_kinds(tmp_path / "t.csv", "dog", "cat", **longer), Run(tmp_path / "run"))  # the labels of items may change
