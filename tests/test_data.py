"""Data: the densities' moments, the order of batches, files good and bad, a resume in the middle of a run."""

import contextlib
import gzip
import hashlib
import inspect
import math
import os
import socket
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import CONF
from fakes import idx, saved_pictures, write_mnist
from omegaconf import OmegaConf
from PIL import Image
from tables import points, write_csv
from torch import Tensor

import litdiffusion.data
from litdiffusion.data import (
    Checkerboard,
    DataModule,
    Digits,
    EpochSampler,
    GaussianMixture,
    ImageFolder,
    InOrderSampler,
    Moons,
    Ramp,
    Spiral,
    StripeSampler,
    SwissRoll,
    TorchvisionImages,
    TwoGaussians,
    bytes_to_floats,
    loader,
    toys,
)
from litdiffusion.data.batch import Batch
from litdiffusion.data.files import short_socket_timeout
from litdiffusion.data.order import shuffled_batches
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError

ALL_TOYS = (GaussianMixture, Ramp, Spiral, TwoGaussians, Moons, SwissRoll, Checkerboard)
TOY = {"size": 10_000, "val_size": 2_000, "batch_size": 512, "seed": 3}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    """The message, which must be one line."""
    message = str(error.value)
    assert "\n" not in message
    return message


# ---- seeds and order ----


def test_fold_seed_is_spread_over_its_low_bits_and_ordered():
    seeds = [fold_seed(seed, step) for seed in range(100) for step in range(100)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    low = {seed % 2**32 for seed in seeds}
    assert len(low) > 9_995  # 10 000 draws of 2³² collide 0.01 times on average
    ones = np.mean([[seed >> bit & 1 for bit in range(63)] for seed in seeds], axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / math.sqrt(10_000)
    assert len({fold_seed(1, 2), fold_seed(2, 1), fold_seed(1), fold_seed(1, 2, 0), fold_seed(-1, 2)}) == 5


def epoch(number: int, size: int, batch_size: int, **settings: object) -> list[list[int]]:
    """The batches of indices that this process trains on in an epoch."""
    sampler = EpochSampler(size, batch_size, **{"seed": 1, **settings})
    sampler.set_epoch(number)
    indices = list(sampler)
    return [indices[k : k + batch_size] for k in range(0, len(indices), batch_size)]


def test_an_epoch_is_a_permutation_without_its_tail():
    sampler = EpochSampler(103, 10, seed=1)
    first, second = list(sampler), list(chain(*epoch(1, 103, 10)))
    assert len(sampler) == len(first) == len(set(first)) == len(set(second)) == 100
    assert set(first) | set(second) <= set(range(103))
    assert first != second
    assert set(first) != set(second)  # the tail is another one


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = [epoch(number, 103, 10) for number in (0, 1, 7)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert [epoch(number, 103, 10) for number in (7, 1, 0)] == found[::-1]
    assert epoch(0, 103, 10, seed=2) != found[0]
    # Beyond 32 bits, where mt19937 alone would not tell seeds apart.
    assert epoch(0, 103, 10, seed=1 + 2**32) != found[0]


def test_ranks_share_the_global_batch():
    whole = epoch(5, 103, 12)
    ranks = [epoch(5, 103, 4, rank=rank, world=3) for rank in range(3)]
    assert [len(rank) for rank in ranks] == [len(whole)] * 3 == [8] * 3
    assert all(len(batch) == 4 for rank in ranks for batch in rank)
    for together, *parts in zip(whole, *ranks, strict=True):
        assert sorted(chain(*parts)) == sorted(together)


@pytest.mark.parametrize("world", [1, 3])
def test_an_epoch_that_was_cut_goes_on_with_exactly_its_tail(world: int):
    for rank in range(world):
        place = {"rank": rank, "world": world}
        whole = epoch(2, 103, 4, **place)
        for done in range(len(whole) + 1):
            assert epoch(2, 103, 4, **place, position=lambda done=done: done) == whole[done:]
    assert len(EpochSampler(103, 4, 1, position=lambda: 3)) == 100  # its length is that of the whole epoch


def test_batches_over_several_epochs_are_those_of_the_epochs():
    whole = list(chain(*(epoch(number, 103, 10) for number in range(3))))
    assert [batch.tolist() for batch in shuffled_batches(103, 10, fold_seed(1, "epoch"), count=25)] == whole[:25]


def test_stripes_cover_everything_once():
    samplers = [StripeSampler(23, rank, 2) for rank in range(2)]
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers] == [12, 11]
    assert sorted(index for sampler in samplers for index in sampler) == list(range(23))


def test_items_in_order_go_on_from_the_batch_that_is_next():
    assert list(InOrderSampler(10, 4)) == list(range(10))
    assert list(InOrderSampler(10, 4, lambda: 2)) == [8, 9]


def test_a_loader_cuts_the_rows_of_its_sampler_and_counts_the_epoch():
    data, class_label, sampler = torch.randn(50, 3), torch.arange(50), EpochSampler(50, 8, seed=0)
    batches = loader(Batch(data, class_label), sampler, 8, drop_last=True)
    found = list(batches)
    assert len(batches) == len(found) == 6
    for index, batch in zip(torch.tensor(list(sampler)).split(8), found, strict=True):
        assert torch.equal(batch.data, data[index])
        assert torch.equal(batch.class_label, index)
    assert next(iter(loader(Batch(data), sampler, 8))).class_label is None
    assert [len(batch.data) for batch in loader(Batch(data), StripeSampler(50, 1, 3), 8)] == [8, 8, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_begins_where_the_epoch_stands_when_its_first_batch_is_asked_for(workers: int):
    """Lightning makes the iterator first, and then says which epoch it is and how far that had come."""
    done = [0]
    sampler = EpochSampler(50, 8, seed=0, position=lambda: done[0])
    batches = iter(loader(Batch(torch.arange(50.0)[:, None]), sampler, 8, workers))
    sampler.set_epoch(3)
    done[0] = 4
    found = [batch.data[:, 0].int().tolist() for batch in batches]
    assert found == epoch(3, 50, 8, seed=0)[4:]


def test_a_loader_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    list(loader(Batch(torch.randn(50, 3)), EpochSampler(50, 8, 0), 8))
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.randn(50, 3)
    assert torch.equal(after, torch.rand(1))


# ---- toys ----

PI = math.pi
SPIRAL_MEAN = (-2 * 0.65 / (9 * PI**2), 1.3 / (3 * PI))
SPIRAL_SQUARE = 0.65**2 + (0.65**2 + 0.15**2) / 12
ROLL_SQUARE = 9.75 * PI**2 + 2 * 0.25
MOONS_SQUARE = 0.5 * 1 + 0.5 * (1 + 1 + 0.25 - 2 * 0.5 * 2 / PI) + 2 * 0.05**2

# density, mean per coordinate, E|x|²: closed forms of the docstrings' formulas
MOMENTS = {
    "gaussian_mixture": (toys.gaussian_mixture, (0.2,), 0.25 + 0.04),
    "two_gaussians": (toys.two_gaussians, (10 / 3, 1 / 3), (101 + 2 * 100) / 3 + 2),
    "ramp": (toys.ramp, (1 / 3, 1 / 3), 2 * (1 / 18 + 1 / 9)),
    "spiral": (toys.spiral, SPIRAL_MEAN, SPIRAL_SQUARE),
    "checkerboard": (toys.checkerboard, (0.0, 0.0), 2 * 4 / 3),
    "moons": (toys.moons, (0.5, 0.25), None),
    "swiss_roll": (toys.swiss_roll, None, ROLL_SQUARE),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_are_the_closed_form_within_five_standard_errors(name: str):
    density, mean, square = MOMENTS[name]
    x = density(200_000, torch.Generator().manual_seed(5)).double()
    root = math.sqrt(len(x))
    if mean is not None:
        assert ((x.mean(0) - torch.tensor(mean)).abs() < 5 * x.std(0) / root).all()
    if square is not None:
        norm = x.square().sum(1)
        assert abs(float(norm.mean()) - square) < 5 * float(norm.std()) / root
    assert density(7, torch.Generator()).dtype == torch.float32


def test_ramp_has_a_ramps_variance_in_any_dimension():
    x = toys.ramp(200_000, torch.Generator().manual_seed(0), dim=3)
    assert x.shape == (200_000, 3)
    # Var of the sample variance: (E(x - m)⁴ - s⁴)/n with E(x - m)⁴ = 1/135.
    error = math.sqrt((1 / 135 - 1 / 18**2) / 200_000)
    assert ((x.var(0) - 1 / 18).abs() < 5 * error).all()
    assert Ramp(dim=3, **TOY).shape == (3,)


def test_mixture_weights_and_spreads():
    x = toys.two_gaussians(90_000, torch.Generator().manual_seed(0))
    left = x[x[:, 0] < 0]
    assert abs(len(left) / 90_000 - 1 / 3) < 5 * math.sqrt(2 / 9 / 90_000)
    assert ((left.mean(0) - torch.tensor([-10.0, 1.0])).abs() < 5 / math.sqrt(30_000)).all()
    assert ((left.var(0) - 1).abs() < 5 * math.sqrt(2 / 30_000)).all()


def test_checkerboard_is_even_over_its_eight_squares():
    x = toys.checkerboard(80_000, torch.Generator().manual_seed(0))
    cell = x.floor().long()
    assert (cell.sum(1) % 2 == 0).all()
    counts = ((cell[:, 0] + 2) * 4 + cell[:, 1] + 2).bincount(minlength=16)
    counts = counts[counts > 0]
    assert len(counts) == 8
    assert ((counts - 10_000).abs() < 5 * math.sqrt(80_000 * 7 / 64)).all()


def test_spiral_keeps_to_its_radius():
    rho = toys.spiral(10_000, torch.Generator().manual_seed(0)).norm(dim=1)
    assert 0.25 <= float(rho.min()) < 0.27
    assert 1.0 < float(rho.max()) <= 1.05


@pytest.mark.parametrize("toy", ALL_TOYS)
def test_toys_are_standardised_reproducible_and_split(toy: type[DataModule]):
    data, again, other = toy(**TOY), toy(**TOY), toy(**{**TOY, "seed": 4})
    for module in (data, again, other):
        module.load()
    x = data.train.data
    assert x.shape == (10_000, *data.shape)
    assert data.val.data.shape == (2_000, *data.shape)
    assert x.double().mean(0).abs().max() < 1e-5
    assert (x.double().var(0, correction=0) - 1).abs().max() < 1e-5
    assert torch.equal(x, again.train.data)
    assert torch.equal(data.val.data, again.val.data)
    assert not torch.equal(x, other.train.data)
    assert not torch.isin(data.val.data[:, 0], x[:, 0]).all()
    assert data.train.class_label is None
    assert (data.num_classes, data.value_range) == (0, None)
    torch.testing.assert_close(data._standardise(data.in_data_units(x)), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("toy", ALL_TOYS)
def test_draws_depend_on_their_own_seed_only(toy: type[DataModule]):
    data = toy(**TOY)
    first, second, once_more = data.draw(5_000, 3), data.draw(5_000, 4), data.draw(5_000, 3)
    assert torch.equal(first, once_more)
    assert not torch.equal(first, second)
    assert not torch.equal(first, data.train.data[:5_000])
    # 5 standard errors of a mean of 5 000 against the training mean of 10 000.
    assert (first.mean(0).abs() < 5 * math.sqrt(1 / 5_000 + 1 / 10_000)).all()


@pytest.mark.parametrize("toy", [GaussianMixture, TwoGaussians])
def test_mixture_describes_the_standardised_data(toy: type[DataModule]):
    data = toy(**TOY)
    weights, means, std = data.mixture
    mean = weights @ means
    variance = weights @ (means.square() + std.square()) - mean.square()
    # The sample's statistics against the law's: some standard errors of 10 000 points.
    assert mean.abs().max() < 5e-2
    assert (variance - 1).abs().max() < 8e-2
    torch.testing.assert_close(means * data.std + data.mean, toy.mixture_in_data_units.means, rtol=0, atol=1e-5)
    torch.testing.assert_close(std * data.std, toy.mixture_in_data_units.std)
    assert Spiral(**TOY).mixture is None


# ---- the module's contract ----


class Given(DataModule):
    """A data module around given tensors."""

    def __init__(self, train: Tensor, val: Tensor, batch_size: int = 4, class_label: Tensor | None = None) -> None:
        super().__init__(batch_size=batch_size, val_size=len(val), seed=0)
        self.given = Batch(train, class_label), Batch(val)
        self.reads = 0

    def read(self) -> tuple[Batch, Batch]:
        self.reads += 1
        return self.given


def test_bytes_become_the_closed_interval_exactly():
    x = bytes_to_floats(torch.arange(256, dtype=torch.uint8))
    assert x.dtype == torch.float32
    assert (float(x[0]), float(x[255])) == (-1.0, 1.0)
    assert torch.equal((x + 1).mul(127.5).round().to(torch.uint8), torch.arange(256, dtype=torch.uint8))
    floats = torch.randn(3)
    assert bytes_to_floats(floats) is floats


def test_load_reads_once_and_references_never_cycle():
    data = Given(torch.zeros(9, 2), torch.arange(6.0).view(3, 2))
    data.load()
    data.setup("fit")
    assert data.reads == 1
    assert torch.equal(data.reference(2), torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert len(data.reference(10)) == 3
    assert len(data.training_reference(4)) == 4


def test_a_fingerprint_tells_every_item_and_label_and_nothing_else():
    train, val, class_label = torch.arange(18.0).view(9, 2), torch.zeros(3, 2), torch.arange(9)
    last, other = train.clone(), class_label.clone()
    last[8, 1] += 1e-5
    other[0] = 5
    variants = [
        Given(train, val),
        Given(last, val),
        Given(train, val + 1),
        Given(train.flip(0), val),
        Given(train.view(9, 1, 2), val),
        Given(train, val, class_label=class_label),
        Given(train, val, class_label=other),
    ]
    prints = [data.fingerprint() for data in variants]
    assert len(set(prints)) == len(variants)
    assert all(len(bytes.fromhex(text)) == 32 for text in prints)
    same = Given(train.T.contiguous().T, val, batch_size=1)
    assert same.fingerprint() == same.fingerprint() == prints[0]
    assert same.reads == 1
    assert Digits(batch_size=8, seed=0).fingerprint() == Digits(batch_size=9, seed=1).fingerprint()
    assert variants[0].test() is variants[0].val


def test_not_a_number_is_counted_and_located():
    bad = torch.zeros(9, 2)
    bad[5] = math.nan
    bad[7, 1] = math.inf
    with pytest.raises(UserError) as error:
        Given(bad, torch.zeros(3, 2)).load()
    assert "3 values that are NaN or infinite, in 2 of 9 items, the first of them item 5" in one_line(error)


def test_a_batch_larger_than_the_set_is_refused_with_the_remedy():
    with pytest.raises(UserError) as error:
        Given(torch.zeros(9, 2), torch.zeros(3, 2), batch_size=10).load()
    assert "data.batch_size=10" in one_line(error)
    assert "set data.batch_size=9" in one_line(error)


@pytest.mark.parametrize(("processes", "remedy"), [(2, "set data.batch_size=4 or less"), (10, "use fewer processes")])
def test_a_batch_that_is_too_large_for_all_processes_is_refused(processes: int, remedy: str):
    data = Given(torch.zeros(9, 2), torch.zeros(3, 2), batch_size=5)
    data.trainer = SimpleNamespace(global_rank=0, world_size=processes)
    with pytest.raises(UserError) as error:
        data.setup("fit")
    assert f"data.batch_size=5 on {processes} process(es)" in one_line(error)
    assert remedy in one_line(error)


@pytest.mark.parametrize("name", ["batch_size", "val_size", "size"])
def test_sizes_below_one_are_refused_by_the_constructor(name: str):
    with pytest.raises(UserError, match=f"data.{name}=0: must be at least"):
        Spiral(**{**TOY, name: 0})


def test_digits_spread_over_bytes_and_are_held_out():
    data, other = Digits(batch_size=64, seed=0), Digits(batch_size=64, seed=1)
    data.load()
    other.load()
    assert data.train.data.shape == (1_500, 1, 8, 8)
    assert data.val.data.shape == (297, 1, 8, 8)
    both = torch.cat((data.train.data, data.val.data))
    assert (int(both.min()), int(both.max()), both.dtype) == (0, 255, torch.uint8)
    assert sorted(both.unique().tolist()) == [round(k * 255 / 16) for k in range(17)]
    assert data.train.class_label.bincount().sum() + data.val.class_label.bincount().sum() == 1_797
    assert data.val.class_label.bincount(minlength=10).min() > 0
    assert torch.equal(data.val.data, other.val.data)  # whatever the seed
    with pytest.raises(UserError, match=r"set data\.val_size between 1 and 1796"):
        Digits(batch_size=64, val_size=1_797, seed=0).load()


# ---- torchvision's files ----

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of whole unpacked files, and no network: every connection fails at once."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_mnist(tmp_path, train=60, test=20)
    return tmp_path / "MNIST" / "raw"


def mnist(raw: Path) -> TorchvisionImages:
    return TorchvisionImages(dataset="MNIST", root=raw.parents[1], batch_size=8, val_size=20, seed=0)


def failure(raw: Path, *mentioned: str) -> str:
    """The one line with which loading fails: it names the files, the folder and the stand-in."""
    with pytest.raises(UserError) as error:
        mnist(raw).load()
    message = one_line(error)
    for part in (*mentioned, str(raw), "data=digits"):
        assert part in message
    return message


def test_unpacked_files_are_read_as_bytes_with_labels(raw: Path):
    data = mnist(raw)
    data.load()
    pixels = np.frombuffer((raw / FILES[0]).read_bytes()[16:], np.uint8).reshape(60, 1, 28, 28)
    rows = torch.cat((data.train.data, data.val.data))
    assert (len(data.train.data), len(data.val.data)) == (40, 20)
    assert rows.dtype == torch.uint8
    assert sorted(map(bytes, rows.numpy())) == sorted(map(bytes, pixels))
    which = [next(i for i in range(60) if (pixels[i] == row).all()) for row in data.val.data.numpy()]
    assert data.val.class_label.tolist() == [i % 10 for i in which]
    assert data.name == "mnist"
    test = data.test()
    assert test.data.shape == (20, 1, 28, 28)
    assert test.class_label.tolist() == [i % 10 for i in range(20)]


def test_packed_files_are_verified_and_unpacked(raw: Path, monkeypatch: pytest.MonkeyPatch):
    import torchvision

    resources = []
    for name in FILES:
        packed = gzip.compress((raw / name).read_bytes())
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    data = mnist(raw)
    data.load()
    assert len(data.train.data) == 40

    for name in FILES:
        (raw / name).unlink()
    (raw / f"{FILES[2]}.gz").write_bytes((raw / f"{FILES[2]}.gz").read_bytes()[:-50])
    message = failure(raw, f"{FILES[2]}.gz (damaged: wrong md5 sum)", "no network in tests")
    assert FILES[1] not in message


def test_missing_files_are_named(raw: Path):
    (raw / FILES[0]).unlink()
    (raw / FILES[3]).unlink()
    message = failure(raw, f"{FILES[0]}.gz (missing)", f"{FILES[3]}.gz (missing)")
    assert FILES[1] not in message


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_a_cut_file_is_named_with_its_size(raw: Path, index: int):
    path = raw / FILES[index]
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    failure(raw, f"{FILES[index]} (damaged: {len(whole) - 7} bytes instead of {len(whole)}")


@pytest.mark.parametrize("content", [b"", b"\0\0", b"<html>not found</html>", idx(np.zeros((4, 28)))])
def test_a_file_of_another_kind_is_named(raw: Path, content: bytes):
    (raw / FILES[0]).write_bytes(content)
    failure(raw, f"{FILES[0]} (damaged: not an IDX file")


def test_labels_that_do_not_fit_are_refused(raw: Path):
    (raw / FILES[1]).write_bytes(idx(np.full(60, 11)))
    assert "download" not in failure(raw, "cannot be used: 60 class labels, 60 images: each needs one from 0 to 9")
    (raw / FILES[1]).write_bytes(idx(np.zeros(59)))
    failure(raw, "59 class labels, 60 images")


def test_cifar_names_its_archive(raw: Path):
    root = raw.parents[1]
    with pytest.raises(UserError) as error:
        TorchvisionImages(dataset="CIFAR10", root=root, batch_size=8, seed=0).load()
    message = one_line(error)
    assert "cifar-10-python.tar.gz (missing)" in message
    assert str(root) in message


def test_an_unknown_dataset_lists_the_known_ones():
    with pytest.raises(UserError, match="MNIST, FashionMNIST, KMNIST, CIFAR10"):
        TorchvisionImages(dataset="EMNIST", root=".", batch_size=8, seed=0)


def test_the_socket_timeout_is_restored():
    before = socket.getdefaulttimeout()
    with contextlib.suppress(OSError), short_socket_timeout(1.5):
        assert socket.getdefaulttimeout() == 1.5
        raise OSError
    assert socket.getdefaulttimeout() == before


# ---- folders of images ----


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of many sizes, modes and formats, in two class folders."""
    random = np.random.default_rng(0)
    kinds = [
        ("RGB", ".png"),
        ("L", ".png"),
        ("RGB", ".jpg"),
        ("RGBA", ".png"),
        ("L", ".bmp"),
        ("RGB", ".webp"),
    ]
    for i in range(12):
        mode, suffix = kinds[i % 6]
        shape = (20 + 3 * i, 50 - 2 * i) + ((len(mode),) if len(mode) > 1 else ())
        folder = tmp_path / ("cat", "dog")[i % 2] / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(folder / f"{i:02d}{suffix.upper()}")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture either")
    return tmp_path


def folder(path: Path, **changes: object) -> ImageFolder:
    arguments = {"path": path, "image_size": [12, 20], "batch_size": 2, "val_size": 4, "seed": 0}
    return ImageFolder(**{**arguments, **changes})


@pytest.mark.parametrize(("channels", "workers"), [(1, 0), (3, 0), (3, 1)])
def test_streaming_gives_the_batches_of_the_decoded_set(pictures: Path, channels: int, workers: int):
    memory = folder(pictures, channels=channels)
    stream = folder(pictures, channels=channels, memory_limit_gb=0.0, num_workers=workers)
    memory.load()
    stream.load()
    assert isinstance(memory.train.data, Tensor)
    assert not isinstance(stream.train.data, Tensor)
    assert memory.shape == (channels, 12, 20)
    assert (memory.num_classes, memory.class_names) == (2, ["cat", "dog"])
    sampler = EpochSampler(8, 2, seed=0)
    pairs = list(zip(*(data.make_loader(data.train, sampler) for data in (memory, stream)), strict=True))
    assert len(pairs) == 4
    for a, b in pairs:
        assert a.data.shape == (2, channels, 12, 20)
        assert torch.equal(a.data, b.data)
        assert torch.equal(a.class_label, b.class_label)
    for a, b in zip(memory.val_dataloader(), stream.val_dataloader(), strict=True):
        assert torch.equal(a.data, b.data)
    assert torch.equal(memory.reference(3), stream.reference(3))


def test_a_streamed_folder_is_known_by_names_sizes_and_settings_without_decoding(tmp_path: Path):
    for i, name in enumerate(("a", "b", "c")):
        Image.fromarray(np.full((4, 4), 80 * i + 50, np.uint8)).save(tmp_path / f"{name}.png")

    def known(**changes: object) -> str:
        arguments = {"memory_limit_gb": 0.0, "val_size": 1, "batch_size": 1}
        return folder(tmp_path, **{**arguments, **changes}).fingerprint()

    first = known()
    assert known(seed=7, batch_size=2, num_workers=0) == first
    changed = [known(channels=1), known(image_size=12), known(val_size=2)]
    with (tmp_path / "c.png").open("ab") as file:
        file.write(b"!")
    changed.append(known())
    os.rename(tmp_path / "c.png", tmp_path / "d.png")
    changed.append(known())
    assert len({first, *changed}) == 6


def test_a_decoded_folder_is_known_by_its_pixels(pictures: Path):
    first = folder(pictures).fingerprint()
    assert folder(pictures, seed=3).fingerprint() == first
    Image.open(pictures / "cat" / "deep" / "00.PNG").transpose(Image.FLIP_TOP_BOTTOM).save(
        pictures / "cat" / "deep" / "00.PNG"
    )
    assert folder(pictures).fingerprint() != first
    (pictures / "My Pictures, 2").mkdir()
    assert folder(pictures / "My Pictures, 2").name == "my-pictures-2"


def test_cover_and_centre_crop_keep_the_middle(tmp_path: Path):
    stripes = np.zeros((10, 40, 3), np.uint8)
    stripes[:, 15:25] = (255, 0, 100)  # the middle square of a wide picture
    tall = np.full((40, 10), 200, np.uint8)
    tall[:10] = tall[30:] = 0
    Image.fromarray(stripes).save(tmp_path / "a.png")
    Image.fromarray(tall).save(tmp_path / "b.png")
    data = folder(tmp_path, image_size=10, val_size=1, batch_size=1)
    data.load()
    both = sorted((data.train.data[0], data.val.data[0]), key=lambda x: int(x.sum()))
    assert both[0].flatten(1).float().mean(1).tolist() == [255, 0, 100]
    assert (both[1] == 200).all()
    assert data.num_classes == 0
    assert data.train.class_label is None


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path):
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("a", "b"):
        Image.fromarray(ramp).save(tmp_path / f"{name}.png")
    data = folder(tmp_path, image_size=8, channels=1, val_size=1, batch_size=1)
    data.load()
    assert torch.equal(data.val.data[0, 0], torch.from_numpy(np.rint(ramp / 257).astype(np.uint8)))


@pytest.mark.parametrize("limit", [2.0, 0.0])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_is_named(pictures: Path, limit: float, workers: int):
    for path in sorted(pictures.rglob("*.PNG")):
        path.write_bytes(path.read_bytes()[:60])
    data = folder(pictures, memory_limit_gb=limit, num_workers=workers)
    message = ""
    try:
        data.load()
        list(data.make_loader(data.train, EpochSampler(8, 2, seed=0)))
    except UserError as error:
        # Not pytest.raises: it would keep the frames, hence the workers, until a garbage collection that ends
        # them the slow way (5 s).
        message = str(error)
    assert message.startswith("cannot read the image " + str(pictures))
    assert "\n" not in message


def test_a_missing_or_empty_folder_and_bad_sizes(tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        folder(tmp_path / "nowhere").load()
    with pytest.raises(UserError, match="no images"):
        folder(tmp_path).load()
    for changes in ({"image_size": 0}, {"image_size": [8]}, {"channels": 2}, {"num_workers": -1}):
        with pytest.raises(UserError, match=f"data.{next(iter(changes))}="):
            folder(tmp_path, **changes)


# ---- the configs ----


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_config_gives_every_argument_of_its_class(path: Path, tmp_path):
    whole = path.read_text().startswith("# @package _global_")
    loaded = OmegaConf.load(path)
    config = OmegaConf.create({"seed": 7, **(loaded if whole else {"data": loaded})})
    if OmegaConf.is_missing(config.data, "path"):
        config.data.path = str(write_csv(tmp_path / "t.csv", points(300)) if path.stem == "table" else tmp_path)
    if OmegaConf.is_missing(config.data, "name"):
        small = {"options": {"size": 4, "image_size": [3, 8, 8]}, "val_size": 2, "batch_size": 2}
        config.data.update({"name": "FakeData", **small})
    if path.stem == "huggingface":
        config.data.update({"path": str(saved_pictures(tmp_path)), "val_size": 2, "batch_size": 2})
    arguments = OmegaConf.to_container(config.data, resolve=True)
    target = getattr(litdiffusion.data, arguments.pop("_target_").removeprefix("litdiffusion.data."))
    assert set(arguments) == set(inspect.signature(target.__init__).parameters) - {"self"}
    data = target(**arguments)
    assert data.seed == 7
    if config.data.get("image_size", 0) is None:  # its first image tells the shape
        data.load()
    images = len(data.shape) == 3
    assert (data.value_range == (-1.0, 1.0)) == images
    assert whole or not images
    if whole:
        assert config.trainer.max_steps >= config.trainer.val_check_interval > 0


# ---- with Lightning ----


class Stop(Exception):
    """Ends a run in the middle."""


class Recorder(pl.LightningModule):
    """Keeps every batch it is given, and stops before one of them if told to."""

    def __init__(self, stop_before: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Batch] = []
        self.validated: list[Tensor] = []
        self.stop_before = stop_before

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if len(self.seen) == self.stop_before:
            raise Stop
        assert isinstance(batch, Batch)
        self.seen.append(batch)
        return self.weight * bytes_to_floats(batch.data).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append(bytes_to_floats(batch.data))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(path: Path, max_steps: int, **changes: object) -> pl.Trainer:
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    arguments = {
        **dict.fromkeys((*quiet, "use_distributed_sampler"), False),
        **{"accelerator": "cpu", "max_epochs": -1, "max_steps": max_steps, "default_root_dir": path},
        **{"check_val_every_n_epoch": None, "val_check_interval": 5, "num_sanity_val_steps": 0},
    }
    return pl.Trainer(**{**arguments, **changes})


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(x.data, y.data) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
def test_a_run_that_was_cut_off_goes_on_with_the_same_batches(workers: int, tmp_path: Path):
    """Three batches an epoch: the run breaks off before the second one of the third."""

    def digits() -> Digits:
        data = Digits(batch_size=500, seed=0)
        data.num_workers = workers
        return data

    whole, cut, rest = Recorder(), Recorder(stop_before=7), Recorder()
    trainer(tmp_path, 20).fit(whole, digits())
    kept = tmp_path / "kept"
    keep = pl.callbacks.ModelCheckpoint(kept, "cut", save_on_exception=True, every_n_train_steps=100)
    checkpointing = {"callbacks": [keep], "enable_checkpointing": True}
    with contextlib.suppress(Stop):  # not pytest.raises, see above
        trainer(tmp_path, 20, **checkpointing).fit(cut, digits())
    resumed = trainer(tmp_path, 20, **checkpointing)
    resumed.fit(rest, digits(), ckpt_path=kept / "cut.ckpt")
    assert (len(whole.seen), len(cut.seen), len(rest.seen)) == (20, 7, 13)
    assert same(whole.seen, cut.seen + rest.seen)
    assert (resumed.num_training_batches, resumed.global_step) == (3, 20)
    data = whole.seen[0].data
    assert (data.dtype, float(data.min()), float(data.max())) == (torch.uint8, 0, 255)
    assert whole.seen[0].class_label.shape == (500,)


def test_lightning_s_epochs_are_those_of_the_sampler(tmp_path: Path):
    """Each item at most once per epoch, another order in the next, and a tail that fills no batch is left out."""
    module, data = Recorder(), Spiral(**TOY)
    run = trainer(tmp_path, -1, max_epochs=2)
    run.fit(module, data)
    assert (run.num_training_batches, len(module.seen)) == (19, 38)
    for number in range(2):
        seen = torch.cat([batch.data for batch in module.seen[19 * number :][:19]])
        assert torch.equal(seen, data.train.data[torch.tensor(epoch(number, 10_000, 512, seed=3)).flatten()])


def test_accumulated_gradients_take_their_batches_in_order(tmp_path: Path):
    plain, accumulated = Recorder(), Recorder()
    trainer(tmp_path, 12).fit(plain, Spiral(**TOY))
    run = trainer(tmp_path, 4, accumulate_grad_batches=3)
    run.fit(accumulated, Spiral(**TOY))
    assert run.global_step == 4
    assert same(plain.seen, accumulated.seen)


def test_validation_is_the_fixed_set_each_time(tmp_path: Path):
    module, data = Recorder(), Digits(batch_size=100, seed=0)
    trainer(tmp_path, 10).fit(module, data)
    assert [len(x) for x in module.validated] == [100, 100, 97] * 2
    assert torch.equal(torch.cat(module.validated[:3]), data.reference(297))
    assert torch.equal(torch.cat(module.validated[3:]), data.reference(297))
