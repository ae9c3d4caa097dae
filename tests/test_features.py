"""Feature nets: deterministic training, files that can be trusted, features of a row that depend on that row alone."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from litdiffusion.data import DataModule, Digits, Spiral, bytes_to_floats
from litdiffusion.data.batch import Batch
from litdiffusion.data.digest import tensor_digest
from litdiffusion.errors import UserError
from litdiffusion.measure.cache import Cached, key_of, read, write
from litdiffusion.measure.features import (
    ClassifierFeatures,
    ClassifierTraining,
    Extractor,
    FeatureMaps,
    InceptionFeatures,
    classification_accuracy,
    fit_classifier,
    reference_features,
    to_bytes,
)
from litdiffusion.measure.features import classifier as classifier_module
from litdiffusion.measure.features.training import accuracy, shifted
from litdiffusion.nets.classifier import Classifier

QUICK = {"steps": 60, "width": 8, "shift": 0}
TRAINING = ClassifierTraining(**QUICK)
FACTS = {"shape": (1, 8, 8), "num_classes": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """A cache with one classifier of the digits in it."""
    cache = tmp_path_factory.mktemp("cache")
    ClassifierFeatures(cache=cache, **QUICK).prepare(digits)
    return cache


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts trainings of a classifier."""
    seen: list[int] = []

    def fit(images: Tensor, class_labels: Tensor, **facts: object) -> Classifier:
        seen.append(len(images))
        return fit_classifier(images, class_labels, **facts)

    monkeypatch.setattr(classifier_module, "fit_classifier", fit)
    return seen


class Given(DataModule):
    """Images and class labels from given tensors; the last rows are held out."""

    num_classes = 2

    def __init__(self, images: Tensor, class_labels: Tensor | None, held_out: int = 4) -> None:
        super().__init__(batch_size=2, val_size=held_out, seed=0)
        self.given, self.shape = (images, class_labels), tuple(images.shape[1:])

    def read(self) -> tuple[Batch, Batch]:
        images, class_labels = self.given
        cut = len(images) - self.val_size
        parts = (slice(None, cut), slice(cut, None))
        return tuple(Batch(images[part], None if class_labels is None else class_labels[part]) for part in parts)


class Mean(Extractor):
    """Counts its images; the feature is the sum of an image's bytes."""

    def __init__(self, name: str = "mean") -> None:
        super().__init__(name, torch.nn.Linear(1, 1), batch_size=7)
        self.count = 0

    def maps(self, images: Tensor) -> FeatureMaps:
        self.count += len(images)
        return FeatureMaps(images.flatten(1).sum(1, keepdim=True), None)


# ---- training ----


def test_training_is_a_function_of_images_and_seed_alone(digits: Digits):
    def weights(seed: int) -> str:
        short = ClassifierTraining(steps=12, width=4)
        net = fit_classifier(*digits.train[:2], **FACTS, seed=seed, training=short)
        return tensor_digest(net.state_dict())

    torch.manual_seed(0)
    first = weights(3)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    with torch.inference_mode():
        assert weights(3) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights(4) != first


def test_digits_are_learned_with_a_gap_to_chance_and_floats_are_bytes(digits: Digits):
    net = fit_classifier(*digits.train[:2], **FACTS, seed=0, training=TRAINING)
    assert accuracy(net, digits.val) >= 0.95
    assert accuracy(net, digits.val, batch_size=7) == accuracy(net, digits.val)
    floats = Batch(bytes_to_floats(digits.val.data), digits.val.class_label)
    assert accuracy(net, floats) == accuracy(net, digits.val)
    assert not net.training


def test_shifts_are_whole_pixels_of_every_kind_and_repeat_the_edge():
    x = torch.arange(25.0).view(1, 1, 5, 5).expand(400, 2, 5, 5)
    moved = shifted(x, 1, torch.Generator().manual_seed(0))
    clamp = (torch.arange(5)[None] + torch.arange(-1, 2)[:, None]).clamp(0, 4)
    wanted = torch.stack([x[0, 0][rows][:, columns] for rows in clamp for columns in clamp])
    assert torch.equal(moved[:, 0], moved[:, 1])
    same = (moved[:, 0, None] == wanted).flatten(2).all(2)
    assert same.any(1).all()
    # 9 moves at 1/9 each: five standard deviations of a count of 400.
    assert ((same.sum(0) - 400 / 9).abs() < 5 * math.sqrt(400 * 8 / 81)).all()
    assert shifted(x, 0, torch.Generator()) is x


@pytest.mark.parametrize(
    "class_labels", [torch.tensor([0, 1, 10]), torch.tensor([0, 1]), torch.tensor([0.0, 1.0, 2.0])]
)
def test_class_labels_that_do_not_fit_are_refused(class_labels: Tensor):
    with pytest.raises(UserError, match="one whole class label from 0 to 9"):
        fit_classifier(torch.zeros(3, 1, 8, 8), class_labels, **FACTS, seed=0)


def test_sizes_out_of_range_are_refused():
    for changes in ({"steps": 0}, {"lr": 0.0}, {"lr": math.nan}, {"shift": -1}, {"batch_size": 1}):
        with pytest.raises(UserError, match=f"{next(iter(changes))}="):
            ClassifierTraining(**changes)
    with pytest.raises(UserError, match="sides of at least 4"):
        Classifier((1, 3, 8), 10)
    with pytest.raises(UserError, match="needs images"):
        Classifier((2,), 10)
    with pytest.raises(UserError, match="classes=1"):
        Classifier((1, 8, 8), 1)


# ---- the extractor ----


def test_features_of_a_row_depend_on_that_row_alone(digits: Digits, folder: Path):
    extractor = ClassifierFeatures(cache=folder, **QUICK).prepare(digits)
    images = bytes_to_floats(digits.val.data)
    whole = extractor(images)
    assert whole.features.shape == (297, 64)
    assert whole.logits.shape == (297, 10)
    assert not whole.features.requires_grad
    order = torch.randperm(297, generator=torch.Generator().manual_seed(0))
    extractor.batch_size = 13
    for a, b in zip(extractor(images[order]), whole, strict=True):
        torch.testing.assert_close(a, b[order], rtol=1e-4, atol=1e-4)
    right = float((whole.logits.argmax(1) == digits.val.class_label).double().mean())
    assert right == extractor.accuracy >= 0.95


def test_mixed_precision_of_the_caller_does_not_reach_the_features(digits: Digits, folder: Path):
    extractor = ClassifierFeatures(cache=folder, **QUICK).prepare(digits)
    plain = extractor(digits.val.data[:9])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = extractor(digits.val.data[:9])
    assert torch.equal(plain.features, mixed.features)


def test_samples_are_rounded_to_bytes_and_bytes_survive():
    grid = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(bytes_to_floats(grid)), grid)
    # Half a step is 1 / 255.
    assert torch.equal(to_bytes(bytes_to_floats(grid) + 0.9 / 255), grid)
    assert to_bytes(torch.tensor([-3.0, 1.7, 0.0])).tolist() == [0, 255, 128]
    with pytest.raises(ValueError, match="diverged"):
        to_bytes(torch.tensor([math.nan]))


def test_images_that_do_not_fit_are_refused(digits: Digits, folder: Path):
    extractor = ClassifierFeatures(cache=folder, **QUICK).prepare(digits)
    with pytest.raises(ValueError, match=r"takes images \(1, 8, 8\), got \(3, 8, 8\)"):
        extractor(torch.zeros(2, 3, 8, 8))
    for images in (torch.zeros(0, 1, 8, 8), torch.zeros(8, 8)):
        with pytest.raises(ValueError, match="n at least 1"):
            extractor(images)


# ---- the cache of classifiers ----


def test_a_kept_classifier_is_not_trained_again_and_gives_the_same_bits(
    digits: Digits, tmp_path: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
):
    features = ClassifierFeatures(cache=tmp_path / "deep" / "cache", **QUICK)
    state = torch.random.get_rng_state()
    first = features.prepare(digits)
    line = capsys.readouterr().out
    assert line.startswith("training a classifier of digits for the metrics: 9")
    assert line.count("\n") == 1
    assert " % of the test images right, " in line
    second = features.prepare(Digits(batch_size=8, seed=5))
    assert capsys.readouterr().out == ""
    assert trainings == [1_500]
    assert first.name == second.name == f"classifier-digits-{tensor_digest(first.net.state_dict())[:8]}"
    for a, b in zip(first(digits.val.data), second(digits.val.data), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [path.suffix for path in features.cache.iterdir()] == [".safetensors"]
    # As another process would write it that had started at the same time.
    content = features.path(digits).read_bytes()
    features.path(digits).unlink()
    assert features.prepare(digits).name == first.name
    assert features.path(digits).read_bytes() == content


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign", "moved"])
def test_a_damaged_file_is_named_and_replaced(
    digits: Digits, folder: Path, tmp_path: Path, trainings: list[int], damage: str
):
    features = ClassifierFeatures(cache=tmp_path, **QUICK)
    path, kept = features.path(digits), ClassifierFeatures(cache=folder, **QUICK).path(digits)
    whole = kept.read_bytes()
    middle = len(whole) // 2
    if damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif damage == "moved":
        write(path, "another key", read(kept, features.key(digits)))
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes({"flip": flipped, "truncate": whole[:-100], "empty": b""}[damage])
    with pytest.warns(UserWarning, match="damaged or foreign") as warned:
        features.prepare(digits)
    messages = [str(warning.message) for warning in warned]
    assert len(messages) == 1
    assert str(path) in messages[0]
    assert "\n" not in messages[0]
    assert trainings == [1_500]
    assert path.read_bytes() == whole


def test_the_key_changes_with_the_data_and_every_setting(digits: Digits, tmp_path: Path):
    features = ClassifierFeatures(cache=tmp_path)
    other = Digits(batch_size=64, val_size=298, seed=0)
    changes = [{"seed": 1}, {"steps": 901}, {"max_epochs": 31}, {"batch_size": 129}, {"lr": 0.011}]
    changes += [{"weight_decay": 0.02}, {"shift": 0}, {"width": 17}]
    keys = [features.key(digits), features.key(other)]
    keys += [ClassifierFeatures(cache=tmp_path, **change).key(digits) for change in changes]
    assert len(set(keys)) == len(changes) + 2
    assert ClassifierFeatures(cache="elsewhere").key(Digits(batch_size=3, seed=9)) == features.key(digits)


def test_data_without_classes_and_a_cache_that_cannot_be_made_are_refused(digits: Digits, tmp_path: Path):
    unlabelled = Given(torch.zeros(9, 1, 8, 8), None)
    points = Spiral(size=100, batch_size=8, val_size=10, seed=0)
    for data in (unlabelled, points):
        with pytest.raises(UserError, match=r"has no classes.*metrics=none.*metrics=inception"):
            ClassifierFeatures(cache=tmp_path).prepare(data)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        ClassifierFeatures(cache=tmp_path / "file" / "cache").prepare(digits)


@pytest.mark.filterwarnings("ignore:.*damaged or foreign.*")
@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_of_a_file_goes_unnoticed_or_raises(tmp_path: Path, bit: int):
    path, kept = (
        tmp_path / "a.safetensors",
        Cached({"a": torch.arange(5.0), "b": torch.ones(2, 3)}, {"n": 5, "s": 0.25}),
    )
    write(path, "key", kept)
    whole = path.read_bytes()
    assert read(path, "key").about == kept.about
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
        assert read(path, "key") is None, position
    assert len(whole) > 200


def test_a_file_is_a_function_of_its_content(tmp_path: Path):
    """Whatever the order of the tensors, and for weights in another memory layout."""
    weights = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for name, tensors in (("a", {"w": weights, "b": weights[0, 0].T}), ("b", {"b": weights[0, 0].T, "w": weights})):
        laid_out = tensors | {"w": weights.to(memory_format=torch.channels_last)}
        write(tmp_path / name, "key", Cached(tensors if name == "a" else laid_out, {"n": 5}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(read(tmp_path / "b", "key").tensors["w"], weights)


# ---- features of real images ----


def test_reference_features_are_computed_once_for_data_part_n_and_net(digits: Digits, tmp_path: Path):
    extractor = Mean()
    train = reference_features(extractor, digits, "train", 20, tmp_path)
    assert torch.equal(train.features[:, 0], digits.train.data[:20].flatten(1).sum(1).float())
    assert train.logits is None
    assert extractor.count == 20
    again = reference_features(extractor, Digits(batch_size=8, seed=1), "train", 20, tmp_path)
    assert torch.equal(again.features, train.features)
    assert extractor.count == 20
    test = reference_features(extractor, digits, "test", 10_000, tmp_path)
    assert torch.equal(test.features[:, 0], digits.val.data.flatten(1).sum(1).float())
    assert len(test.features) == 297
    reference_features(extractor, digits, "train", 21, tmp_path)
    reference_features(extractor, Digits(batch_size=8, val_size=99, seed=0), "train", 20, tmp_path)
    assert extractor.count == 20 + 297 + 21 + 20
    renamed = Mean("other")
    reference_features(renamed, digits, "train", 20, tmp_path)
    assert renamed.count == 20
    with pytest.raises(UserError, match="train, full or test"):
        reference_features(extractor, digits, "val", 20, tmp_path)


def test_the_full_reference_is_every_image_of_the_training_split(digits: Digits, tmp_path: Path):
    """Published FIDs compare with all training images, also with those that a run holds out for validation."""
    extractor = Mean()
    train, val = (part.data.flatten(1).sum(1).float() for part in (digits.train, digits.val))
    full = reference_features(extractor, digits, "full", None, tmp_path)
    assert torch.equal(full.features[:, 0], torch.cat([train, val]))
    some = reference_features(extractor, digits, "full", len(train) + 3, tmp_path)
    assert torch.equal(some.features, full.features[: len(train) + 3])
    few = reference_features(extractor, digits, "full", 20, tmp_path)
    assert torch.equal(few.features, full.features[:20])


def test_damaged_reference_features_are_computed_anew(digits: Digits, folder: Path, tmp_path: Path):
    extractor = ClassifierFeatures(cache=folder, **QUICK).prepare(digits)
    first = reference_features(extractor, digits, "test", 40, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged or foreign"):
        second = reference_features(extractor, digits, "test", 40, tmp_path)
    third = reference_features(extractor, digits, "test", 40, tmp_path)
    for maps in (second, third):
        assert torch.equal(maps.features, first.features)
        assert torch.equal(maps.logits, first.logits)


# ---- the classification accuracy score ----


def test_real_images_score_as_real_and_shuffled_class_labels_as_chance(digits: Digits):
    images, class_labels = bytes_to_floats(digits.train.data[:600]), digits.train.class_label[:600]
    training = ClassifierTraining(steps=40, width=4, shift=0)
    same = classification_accuracy(images, class_labels, digits, seed=1, training=training)
    assert same.samples == same.real
    assert same.n == 600
    assert same.real.accuracy >= 0.9
    p = same.real.accuracy
    assert same.real.error == pytest.approx(math.sqrt(p * (1 - p) / 297), rel=1e-12)
    mixed = class_labels[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    chance = classification_accuracy(images, mixed, digits, seed=1, training=training)
    assert chance.real == same.real
    # What a net learns by heart from random class labels is no longer independent between test images: a wide margin.
    assert abs(chance.samples.accuracy - 0.1) < 0.1
    with pytest.raises(UserError, match="needs class labels"):
        classification_accuracy(images, class_labels, Given(torch.zeros(9, 1, 8, 8), None))


# ---- Inception ----


def test_inception_without_its_weights_names_the_file_and_the_ways_out(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(UserError) as error:
        InceptionFeatures().prepare(digits)
    message = str(error.value)
    wanted = str(tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth")
    assert all(part in message for part in (wanted, "metrics=classifier", "metrics=none"))
    assert "\n" not in message
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as Inception's weights"):
        InceptionFeatures(weights=tmp_path / "weights.pth").prepare(digits)
    (tmp_path / "checkpoints").mkdir()
    Path(wanted).write_bytes(b"half of a download")
    with pytest.raises(UserError, match=r"its sha256 is [0-9a-f]{64}, not 6726825d0af5f729") as error:
        InceptionFeatures().prepare(digits)
    assert all(part in str(error.value) for part in (wanted, "metrics=classifier"))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="takes images"):
        InceptionFeatures().prepare(Spiral(size=100, batch_size=8, val_size=10, seed=0))


def test_inception_without_its_package_says_what_to_install(digits: Digits, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("litdiffusion.measure.features.inception.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'torch-fidelity"):
        InceptionFeatures().prepare(digits)


def test_inception_takes_greys_as_three_equal_channels(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    kind, path = module.FeatureExtractorInceptionV3, tmp_path / "weights.pth"
    # Random weights: the constructor wants a file before there is one to save.
    torch.save({}, path)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "load_state_dict", lambda *_: None)
        torch.save(kind("inception-v3-compat", ["2048"], str(path)).state_dict(), path)
    state = torch.random.get_rng_state()
    with pytest.warns(UserWarning, match="not Inception's published weights"):
        extractor = InceptionFeatures(weights=path).prepare(digits)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert extractor.name.startswith("inception-")
    grey = extractor(bytes_to_floats(digits.val.data[:2]))
    colour = extractor(digits.val.data[:2].expand(-1, 3, -1, -1))
    assert grey.features.shape == (2, 2048)
    assert grey.logits.shape == (2, 1008)
    # Untrained features are tiny: differences count beside their own size.
    size = float(grey.features.abs().max())
    assert size > 0
    torch.testing.assert_close(grey.features / size, colour.features / size, rtol=0, atol=1e-5)
    assert float((grey.features[0] - grey.features[1]).abs().max()) > 0.01 * size
    logits = grey.features / size @ extractor.net.fc.weight.T
    torch.testing.assert_close(grey.logits / size, logits, rtol=1e-4, atol=1e-4)


def test_key_of_does_not_depend_on_the_order_of_its_facts():
    assert key_of(a=1, b=[2]) == key_of(b=[2], a=1) != key_of(a=1, b=[3])
