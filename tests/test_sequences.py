"""Sequences (C, L): the 1-D U-Net, the profiles of terrain, and the pictures that show them as curves."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from test_dit import stirred
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from litdiffusion.data import Profiles, facts_of
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import VectorQuality
from litdiffusion.measure.quality.spectra import spectrum_estimates
from litdiffusion.nets import UNet1d
from litdiffusion.plots import comparison_picture, forward_picture, trajectory_gif, trajectory_picture


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def net(shape=(2, 12), **settings) -> UNet1d:
    small = {"noise_label_range": (0.0, 1.0), "channels": [8, 16, 32], "blocks": 1, "embedding_dim": 12}
    return stirred(UNet1d(shape, **{**small, **settings}))


@pytest.mark.parametrize(("widths", "blocks", "attention", "classes"), [([8, 16, 32], 2, True, 3), ([5], 1, False, 0)])
def test_unet1d_has_the_parameters_of_its_description(widths, blocks, attention, classes):
    e, first, last = 12, widths[0], widths[-1]

    def conv(i, o, k):
        return k * i * o + o

    def block(i, o):
        return i + conv(i, o, 3) + (e * 2 * o + 2 * o) + conv(o, o, 3) + (conv(i, o, 1) if i != o else 0)

    total = conv(2, first, 3) + first + conv(first, 4, 3)
    total += (32 * e + e) + (e * e + e) + (classes + 1) * e * (classes > 0)
    total += sum(blocks * block(w, w) for w in widths)
    total += sum(block(2 * w, w) + (blocks - 1) * block(w, w) for w in widths[:-1])
    total += sum(conv(i, o, 2) + 2 * o * i + i for i, o in pairwise(widths))
    total += attention * (last + conv(last, 3 * last, 1) + conv(last, last, 1))
    built = UNet1d((2, 16), (0.0, 1.0), widths, blocks, attention, e, out_channels=4, num_classes=classes)
    assert sum(p.numel() for p in built.parameters()) == total


def test_it_starts_at_zero_and_every_parameter_gets_a_gradient():
    fresh = UNet1d((1, 12), (0.0, 1.0), [8, 16], num_classes=3)
    x, label, classes = torch.randn(4, 1, 12), torch.rand(4), torch.tensor([0, 1, 2, 3])
    assert torch.equal(fresh(x, label, classes), torch.zeros_like(x))
    stirred(fresh)(x, label, classes).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in fresh.parameters())


@pytest.mark.parametrize("length", [4, 9, 13, 16])
def test_lengths_that_do_not_divide_are_padded_and_cropped(length):
    model, x, label = net((2, length)), torch.randn(1, 2, length), torch.rand(1)
    torch.testing.assert_close(model(x, label), model(pad(x, (0, -length % 4)), label)[..., :length])


def test_without_attention_far_places_do_not_meet_and_a_shift_by_the_coarsest_step_shifts_the_output():
    model, label, x = net((1, 128), attention=False), torch.rand(1), torch.zeros(1, 1, 128)
    x[..., 60] = 5.0
    out, silent = model(x, label), model(torch.zeros_like(x), label)
    assert torch.equal(out[..., 110:], silent[..., 110:])
    torch.testing.assert_close(model(x.roll(4, -1), label)[..., 44:84], out[..., 40:80])
    attentive = net((1, 128))
    assert not torch.equal(attentive(x, label)[..., 110:], attentive(torch.zeros_like(x), label)[..., 110:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (2,)}, r"needs sequences of shape \(channels, length\), got \(2,\); take model=mlp"),
        ({"channels": []}, r"model\.channels must be the width of each level"),
        ({"channels": [8, 40]}, r"a last width that is a multiple of 32, or less than it"),
        ({"blocks": 0}, r"model\.blocks must be a whole number of at least 1, got 0"),
        ({"dropout": 1.0}, r"model\.dropout must lie in \[0, 1\), got 1.0"),
        ({"channels": [8] * 5}, r"halves a sequence of 12 places to less than one; take fewer levels"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_remedy(settings, message):
    with pytest.raises(UserError, match=message) as error:
        net(**settings)
    assert "\n" not in str(error.value)


def test_profiles_are_the_maps_rows_and_training_and_validation_share_none():
    data = Profiles(batch_size=8, seed=0)
    data.load()
    heights = np.load(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False))["elevation"].astype(float)
    lines = np.stack([row[start : start + 64] for row in heights for start in range(0, 340, 16)])
    lines -= lines.mean(1, keepdims=True)
    found = [part.data[:, 0].double().numpy() for part in (data.train, data.val)]
    assert [len(part) for part in found] == [304 * 22, 40 * 22]
    for part, own in zip(found, (lines[: 304 * 22], lines[304 * 22 :]), strict=True):
        np.testing.assert_allclose(np.sort(part, axis=0), np.sort(own, axis=0), atol=1e-3)
    np.testing.assert_allclose(found[0][:500].std(), lines.std(), rtol=0.1)  # the first are a random subset


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 404}, r"data\.length=404: a row of the map has 403 heights"),
        ({"length": 1}, r"data\.length=1: must be at least 2"),
        ({"val_size": 7568}, r"data\.val_size=7568: the map has 7568 lines; set a smaller one"),
    ],
)
def test_profiles_refuse_sizes_that_the_map_does_not_have(settings, message):
    with pytest.raises(UserError, match=message):
        Profiles(batch_size=8, seed=0, **settings).load()


def test_sequences_are_shown_as_curves():
    def with_height(value: float) -> torch.Tensor:
        return torch.full((6, 1, 5), value)

    data = torch.linspace(-1, 1, 30).view(6, 1, 5)
    low, high = (np.asarray(trajectory_picture([with_height(v)], ["t"], data)) for v in (-0.5, 0.5))
    middle = slice(40, low.shape[1] // 2 - 40)
    rows = [np.flatnonzero((picture[40:-40, middle] < 200).any(-1).mean(1) > 0.9).mean() for picture in (low, high)]
    assert rows[0] > rows[1]  # the row of a picture grows downwards
    broken = with_height(0.0).clone()
    broken[0, 0, 2] = float("nan")
    two_channels = torch.randn(9, 2, 5)
    for state in (data, 100 * data, broken, two_channels):
        reference = two_channels if state.shape[1] == 2 else data
        pictures = [
            comparison_picture({"data": reference, "samples": state}),
            forward_picture([reference, state], "ab"),
        ]
        assert all(picture.mode == "RGB" for picture in pictures)
        assert trajectory_gif([state, state], "ab", reference).startswith(b"GIF")


def smooth(n: int, seed: int) -> torch.Tensor:
    """Sequences (n, 2, 6) of two channels with an uneven spectrum."""
    return torch.randn(n, 2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).cumsum(-1)


def measured(x: torch.Tensor, samples: torch.Tensor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is read
        facts = facts_of(DataLoader(x, batch_size=50))
    values = VectorQuality().attach(facts).measure(samples)
    return {name: estimate.value for name, estimate in values.items()}


def test_the_distances_of_sequences_are_those_of_all_their_values():
    data, samples = smooth(100, 0).float(), 2 * smooth(60, 1).float()
    found, flat = measured(data, samples), measured(data.flatten(1), samples.flatten(1))
    assert found.keys() - flat.keys() == {"spectrum_error"}
    assert flat == {name: value for name, value in found.items() if name in flat}


def test_the_error_of_a_spectrum_in_closed_form():
    data = smooth(500, 0)
    error = spectrum_estimates(3 * data, data)["spectrum_error"]
    assert error.value == pytest.approx(2 * math.log(3), rel=1e-12)
    assert spectrum_estimates(data + 5, data + 5)["spectrum_error"].value == 0
    fresh = [spectrum_estimates(smooth(500, k), smooth(50_000, 99))["spectrum_error"].value for k in range(1, 21)]
    assert sum(fresh) / 20 == pytest.approx(
        500**-0.5, rel=0.35
    )  # the powers of normals, and more at the last frequency
    noisy = data + 0.5 * torch.randn(data.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    assert spectrum_estimates(noisy, data)["spectrum_error"].value > 4 * max(fresh)


def test_a_run_on_sequences_draws_its_pictures(trained):
    small = ["model.channels=[8]", "model.blocks=1", "schedule.steps=25", "callbacks.final_samples.points=30"]
    folder = trained(
        "data=profiles", "model=unet1d", "data.stride=200", "data.batch_size=8", "data.val_size=22", *small
    )
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"samples/wasserstein_over_floor", "samples/spectrum_error"} <= set(header)
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names == {"forward_process.png", "samples.png", "trajectory.gif", "trajectory_step_000004.png"}
