"""Quality objects: ratios to the floor are 1 for data, grow with the error, and rest on fixed real statistics."""

import math
import warnings

import pytest
import torch
from torch import Tensor

from litdiffusion.codecs import Standardise
from litdiffusion.data import Digits, GaussianMixture, Moons, Spiral
from litdiffusion.data.base import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.data.loaders import take
from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import energy_distance, frechet_distance, kernel_mmd, moments, sliced_wasserstein
from litdiffusion.measure.features import ClassifierFeatures, FeatureMaps
from litdiffusion.measure.quality import ImageQuality, VectorQuality
from litdiffusion.measure.quality import images as images_module
from litdiffusion.measure.quality import vectors as vectors_module

N = 400


def level(sigma: float) -> Level:
    return Level(*(torch.tensor(value, dtype=torch.float64) for value in (1.0, 1.0, sigma)))


@pytest.fixture(scope="module")
def mixture() -> DataModule:
    return GaussianMixture(batch_size=64, val_size=100, size=2000, seed=0)


@pytest.fixture(scope="module")
def vectors(mixture) -> VectorQuality:
    return VectorQuality().attach(mixture)


def test_data_in_the_place_of_samples_score_one(vectors, mixture):
    """The mean ratio of 30 independent data sets is 1 within its own error, for every distance."""
    samples = torch.cat([mixture.draw(N, 50_000 + k) for k in range(30)])
    measured = vectors.measure(samples, n=N)
    for name in ("wasserstein", "energy", "mmd"):
        ratio = measured[f"{name}_over_floor"]
        # The floor itself is a mean of 10 pairs, and 4 draws are shared by all sets.
        assert abs(ratio.value - 1) < 0.35, name
        assert 0.05 < ratio.spread < 0.8, name


def test_a_shift_is_measured_in_units_of_the_data(vectors, mixture):
    """W1 of data shifted by c is c, up to the floor; the ratio is c over the floor."""
    measured = vectors.measure(mixture.draw(N, 7) + 0.5)
    floor = vectors.rivals(N)["data"]["wasserstein"]
    assert abs(measured["wasserstein"].value - 0.5) < 3 * floor.value
    assert math.isclose(
        measured["wasserstein_over_floor"].value, measured["wasserstein"].value / floor.value, rel_tol=1e-9
    )


def test_the_floor_falls_as_one_over_the_root_of_n(vectors):
    small, large = (vectors.rivals(n)["data"]["wasserstein"].value for n in (200, 1600))
    assert 2.0 < small / large < 4.2  # sqrt(8) = 2.83


def test_modes_of_a_mixture_are_weighed(vectors, mixture):
    one_mode = mixture.mixture.means[1] + 0.01 * torch.randn(N, 1, generator=torch.Generator().manual_seed(0))
    measured = vectors.measure(one_mode)
    assert measured["mode_1"].value == 1
    assert math.isclose(measured["mode_error"].value, 0.3, abs_tol=1e-6)
    fair = vectors.measure(mixture.draw(N, 3))
    assert abs(fair["mode_0"].value - 0.3) < 4 * fair["mode_0"].spread


def test_noised_data_are_compared_with_noised_data(vectors, mixture):
    """A walk that ends at sigma = 2 is measured there: noised data are at the floor, clean data far from it."""
    noised = vectors.fresh(N, 99, level(2.0))
    assert abs(noised.std().item() - math.sqrt(1 + 4)) < 0.3
    at, off = (
        vectors.measure(x, level=level(2.0))["wasserstein_over_floor"].value for x in (noised, mixture.draw(N, 1))
    )
    assert at < 2 < 3 < off


def test_rivals_stand_beside_the_samples(vectors):
    """Two Gaussians fitted to a mixture of two are at the floor; a kernel density estimate is wider than the data."""
    rivals = vectors.rivals(N)
    assert list(rivals) == ["data", "kernel density", "gaussian mixture"]
    assert rivals["data"]["wasserstein_over_floor"].value == 1
    assert rivals["gaussian mixture"]["wasserstein_over_floor"].value < 2
    sets = vectors.rival_samples(4000)
    assert sets["kernel density"].var() > sets["data"].var()


def test_real_statistics_are_computed_once(mixture, monkeypatch):
    quality, calls = VectorQuality().attach(mixture), []
    fresh = quality.fresh
    monkeypatch.setattr(quality, "fresh", lambda *a: calls.append(a) or fresh(*a))
    first = quality.measure(mixture.draw(N, 5))
    count = len(calls)
    assert quality.measure(mixture.draw(N, 5)) == first
    assert len(calls) == count > 0


def test_vectors_without_a_law_to_draw_from_use_the_training_points():
    class Plain(DataModule):
        shape = (2,)

        def read(self) -> tuple[Batch, Batch]:
            x = torch.randn(900, 2, generator=torch.Generator().manual_seed(0))
            return Batch(x[:800]), Batch(x[800:])

    data = Plain(batch_size=10, val_size=100, seed=0)
    data.load()
    measured = VectorQuality(["wasserstein"]).attach(data).measure(torch.randn(200, 2) * 3)
    assert measured["wasserstein_over_floor"].value > 5
    assert set(measured) == {"wasserstein", "wasserstein_over_floor"}


def test_sets_give_the_spread_between_them(mixture):
    quality = VectorQuality(["wasserstein"]).attach(mixture)
    samples = torch.cat([mixture.draw(N, 1), mixture.draw(N, 2) + 1])
    values = [quality.measure(part)["wasserstein"].value for part in samples.split(N)]
    both = quality.measure(samples, n=N)["wasserstein"]
    assert math.isclose(both.value, sum(values) / 2, rel_tol=1e-9)
    assert math.isclose(both.spread, abs(values[0] - values[1]) / math.sqrt(2), rel_tol=1e-6)


# ---- floors and baselines of vectors, kept in files ----


def spiral(**settings: int) -> Spiral:
    return Spiral(**{"batch_size": 64, "val_size": 100, "size": 500, "seed": 0} | settings)


def numbers(quality: VectorQuality, n: int = 60, at: Level = CLEAN) -> list:
    """All numbers of samples and of baselines, and the baselines' points."""
    samples = 1.1 * quality.data.draw(2 * n, 5)
    points = {name: x.tolist() for name, x in quality.rival_samples(n, at).items()}
    return [quality.measure(samples, n, at), quality.rivals(n, at), points]


@pytest.mark.parametrize("at", [CLEAN, level(2.0)], ids=["clean", "noised"])
@pytest.mark.parametrize("data", [spiral(), GaussianMixture(batch_size=64, val_size=100, size=500, seed=0)])
def test_kept_floors_and_baselines_give_the_same_bits(data, at, tmp_path):
    expected = numbers(VectorQuality().attach(data), at=at)
    assert numbers(VectorQuality(cache=tmp_path / "deep" / "cache").attach(data), at=at) == expected
    written = {path: path.read_bytes() for path in (tmp_path / "deep" / "cache").iterdir()}
    assert len(written) == 5  # three floors, two baselines
    assert numbers(VectorQuality(cache=tmp_path / "deep" / "cache").attach(data), at=at) == expected
    # As another process writes them that computes them at the same time.
    numbers(VectorQuality(cache=tmp_path / "other").attach(data), at=at)
    assert {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()} == {
        path.name: content for path, content in written.items()
    }


def test_what_is_kept_is_not_computed_again(tmp_path, monkeypatch):
    numbers(VectorQuality(cache=tmp_path).attach(spiral()))
    quality, seeds = VectorQuality(cache=tmp_path).attach(spiral(batch_size=8)), []
    fresh = quality.fresh
    monkeypatch.setattr(quality, "fresh", lambda n, seed, *a: seeds.append(seed) or fresh(n, seed, *a))
    monkeypatch.setattr(vectors_module, "RIVALS", dict.fromkeys(vectors_module.RIVALS))
    numbers(quality)
    assert set(seeds) == {1000 + k for k in range(vectors_module.FRESH)}  # no pairs for a floor


def test_the_files_change_with_all_that_the_numbers_depend_on(tmp_path):
    def new_files(quality: VectorQuality, **facts) -> int:
        known = set(tmp_path.iterdir())
        numbers(quality, **facts)
        return len(set(tmp_path.iterdir()) - known)

    def kept(data: Spiral, *distances: str) -> VectorQuality:
        return VectorQuality(distances or ["wasserstein"], cache=tmp_path).attach(data)

    class Wider(Spiral):
        """The same points, but another law of fresh ones."""

        def draw(self, n: int, seed: int) -> Tensor:
            return 1.01 * super().draw(n, seed)

    coded = kept(spiral())
    coded.codec = Standardise([1.0, 0.0], [2.0, 1.0])
    assert new_files(kept(spiral())) == 3
    assert new_files(kept(spiral(batch_size=8))) == 0
    assert new_files(kept(spiral(seed=1))) == 3
    assert new_files(kept(spiral(size=501))) == 3
    assert new_files(kept(Wider(batch_size=64, val_size=100, size=500, seed=0))) == 3
    assert new_files(kept(spiral()), n=61) == 3
    assert new_files(kept(spiral()), at=level(1.0)) == 3
    assert new_files(kept(spiral()), at=level(2.0)) == 3
    assert new_files(coded) == 0  # of no effect on clean data
    coded = kept(spiral())
    coded.codec = Standardise([1.0, 0.0], [2.0, 1.0])
    assert new_files(coded, at=level(2.0)) == 3
    assert new_files(kept(spiral(), "wasserstein", "energy")) == 3  # a floor, and both baselines


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_floor_is_computed_again(damage, tmp_path):
    quality = VectorQuality(["wasserstein"], cache=tmp_path).attach(spiral())
    expected = numbers(quality)
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, content in whole.items():
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"flip": flipped, "truncate": content[:-9], "empty": b""}[damage])
    with pytest.warns(UserWarning, match="damaged or foreign") as warned:
        assert numbers(VectorQuality(["wasserstein"], cache=tmp_path).attach(spiral())) == expected
    assert len(warned) == len(whole) == 3
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    quality = VectorQuality(["wasserstein"], cache=tmp_path / "file" / "cache").attach(spiral())
    with pytest.warns(UserWarning, match=r"not kept: .* cannot be written") as warned:
        found = numbers(quality)
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(VectorQuality(["wasserstein"]).attach(spiral())) == found


def test_numbers_are_the_means_of_the_distances_of_pairs(tmp_path):
    quality = VectorQuality(cache=tmp_path).attach(spiral())
    x, scale = (
        quality.data.draw(60, 5),
        quality.data.training_reference(500).double().std(0, correction=0).mean().item(),
    )
    found, floors = quality.measure(x), quality.rivals(60)["data"]
    distances = {"wasserstein": sliced_wasserstein, "energy": energy_distance}
    distances["mmd"] = lambda a, b: kernel_mmd(a, b, scale)
    for name, distance in distances.items():
        direct = [distance(x, quality.fresh(60, 1000 + k)) for k in range(vectors_module.FRESH)]
        assert math.isclose(found[name].value, sum(direct) / len(direct), rel_tol=1e-12), name
        count = vectors_module.FLOOR_PAIRS // (1 if name == "wasserstein" else 3)
        pairs = [distance(quality.fresh(60, 2 * i), quality.fresh(60, 2 * i + 1)) for i in range(count)]
        assert math.isclose(floors[name].value, sum(pairs) / count, rel_tol=1e-12), name
        assert math.isclose(floors[name].spread, torch.tensor(pairs, dtype=torch.float64).std().item(), rel_tol=1e-9), (
            name
        )


@pytest.mark.parametrize(("distances", "word"), [(["wasserstien"], "wasserstein"), (["energy"], "headline")])
def test_unknown_and_missing_distances_are_refused(distances, word):
    with pytest.raises(UserError, match=word):
        VectorQuality(distances)


@pytest.fixture(scope="module")
def images(digits, tmp_path_factory) -> ImageQuality:
    cache = str(tmp_path_factory.mktemp("metrics"))
    return ImageQuality(ClassifierFeatures(cache=cache, steps=200), cache, reference=1000).attach(digits)


class TestedDigits(Digits):
    """Digits with a test split beside the validation items."""

    __test__ = False

    def test(self) -> Batch:
        return take(self.val, torch.arange(len(self.val.data)))


def scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def test_held_out_images_are_the_floor(images, digits):
    held_out = scaled(digits.test().data)
    measured = images.measure(held_out)
    assert math.isclose(measured["frechet_over_floor"].value, 1, rel_tol=1e-9)
    assert measured["confidence"].value > 0.9
    assert measured["class_error"].value < 0.1
    assert abs(measured["kernel"].value) < 5 * measured["kernel"].spread + 0.05


def test_the_floor_is_of_random_images_however_they_are_stored(images):
    """Features in two equal groups, stored one after the other: the first half is not what the floor is made of."""
    generator = torch.Generator().manual_seed(0)

    def features(count: int) -> Tensor:
        group = torch.arange(count).mul(2).div(count, rounding_mode="floor")[:, None]
        return torch.randn(count, 4, generator=generator) + 3 * group

    train, test = features(2000), features(2000)
    quality = ImageQuality(None, "", reference=1000)
    maps = [FeatureMaps(x, None) for x in (train, test)]
    quality.real = images_module.Real(images.real.extractor, *maps, moments(train))
    floor = quality.rivals(1000)["data"]["frechet"].value
    assert floor < 0.1 * frechet_distance(test[:1000], train)
    thinned = [frechet_distance(test[k::2], train) for k in range(2)]  # half of each group
    assert 0.5 * min(thinned) < floor < 2 * max(thinned)


def test_the_frechet_distance_is_that_of_the_extractor_s_features(images, digits):
    samples = scaled(digits.val.data[:100]).flip(-1)
    maps: FeatureMaps = images.real.extractor(samples)
    expected = frechet_distance(maps.features, images.real.train.features)
    assert math.isclose(images.measure(samples)["frechet"].value, expected, rel_tol=1e-8)


def test_the_full_reference_needs_a_test_split_and_is_named(images, digits, tmp_path):
    with pytest.raises(UserError, match=r"metrics\.part=half: must be train, or full"):
        ImageQuality(None, tmp_path, part="half")
    with pytest.raises(UserError, match="has no test split"):
        _ = ImageQuality(images.features, tmp_path, part="full").attach(digits).real
    quality = ImageQuality(images.features, tmp_path, reference=None, part="full")
    quality.attach(TestedDigits(batch_size=8, val_size=200, seed=0))
    assert len(quality.real.train.features) == 1797
    assert "1797 training and validation images as reference" in quality.legend()


def test_worse_images_score_worse(images, digits):
    """Noise on the images raises the distances and lowers precision; a single repeated class lowers the recall."""
    good = scaled(digits.test().data)
    noisy = (good + 0.8 * torch.randn(good.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    ones = scaled(digits.train.data[digits.train.class_label == 1])
    base, noise, single = (images.measure(x) for x in (good, noisy, ones))
    assert noise["frechet"].value > 3 * base["frechet"].value
    assert noise["kernel"].value > base["kernel"].value + 5 * noise["kernel"].spread
    assert noise["precision"].value < base["precision"].value
    assert single["recall"].value < 0.5 * base["recall"].value
    assert single["class_error"].value > 0.8
    assert single["precision"].value > 0.9


def test_the_classes_of_conditional_samples_are_recognised(images, digits):
    test = digits.test()
    right = images.measure(scaled(test.data), class_labels=test.class_label)["class_accuracy"].value
    wrong = images.measure(scaled(test.data), class_labels=(test.class_label + 1) % 10)["class_accuracy"].value
    assert right > 0.9
    assert wrong < 0.05


def test_copies_of_training_images_are_found(images, digits):
    copies = images.copying(scaled(digits.train.data[:50]))
    assert copies.share.value == 1
    assert copies.nearest.indices.tolist() == list(range(50))
    assert images.copying(-scaled(digits.train.data[:50])).share.value == 0


def test_quality_refuses_data_of_another_kind(digits, mixture):
    with pytest.raises(UserError, match="metrics=vectors measures points"):
        VectorQuality().attach(digits)
    with pytest.raises(UserError, match="metrics=vectors"):
        ImageQuality(None, "").attach(mixture)


def test_moons_have_no_modes():
    data = Moons(batch_size=10, val_size=10, size=300, seed=0)
    assert not any(name.startswith("mode") for name in VectorQuality().attach(data).measure(data.draw(100, 1)))
    assert vectors_module.FRESH >= 2
