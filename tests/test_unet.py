"""The default U-Net: its formulas, counts and symmetries, and what it refuses."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, linear, pad, rms_norm, silu, softmax

from litdiffusion.errors import UserError
from litdiffusion.nets import SourceUNet, UNet
from litdiffusion.nets.unet import Attention, FourierEmbedding, ResidualBlock, RMSNorm
from litdiffusion.training.hardware import prepared


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def stirred(module: nn.Module) -> nn.Module:
    """The module with random parameters, also where it starts at zero."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    return module.eval()


def net(shape=(2, 8, 8), **settings) -> UNet:
    small = {"noise_label_range": (0.0, 1.0), "channels": [8, 16], "blocks": 1, "embedding_dim": 12}
    return stirred(UNet(shape, **{**small, **settings}))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def counted_by_hand(image, widths, blocks, patch, e, attention, classes):
    """Parameters from the description: convolutions, one norm a block, two linear maps a block's embedding."""

    def conv(i, o, k):
        return k * k * i * o + o

    def block(i, o):
        return i + conv(i, o, 3) + (e * 2 * o + 2 * o) + conv(o, o, 3) + (conv(i, o, 1) if i != o else 0)

    first, last, square = widths[0], widths[-1], patch**2
    total = conv(image * square, first, 3) + first + conv(first, image * square, 3)
    total += (32 * e + e) + (e * e + e) + (classes + 1) * e * (classes > 0)
    total += sum(blocks * block(w, w) for w in widths)
    total += sum(block(2 * w, w) + (blocks - 1) * block(w, w) for w in widths[:-1])
    total += sum(conv(4 * i, o, 1) + conv(o, 4 * i, 1) for i, o in pairwise(widths))
    return total + attention * (last + conv(last, 3 * last, 1) + conv(last, last, 1))


@pytest.mark.parametrize(
    ("image", "widths", "blocks", "patch", "e", "attention", "classes"),
    [(1, [64, 128], 2, 2, 128, True, 10), (3, [8, 16, 32], 1, 1, 12, True, 0), (2, [5], 3, 4, 7, False, 3)],
)
def test_it_has_the_parameters_of_its_description(image, widths, blocks, patch, e, attention, classes):
    settings = {"patch": patch, "embedding_dim": e, "attention": attention, "num_classes": classes}
    built = UNet((image, 16, 16), (0.0, 1.0), widths, blocks, **settings)
    assert count(built) == counted_by_hand(image, widths, blocks, patch, e, attention, classes)


def test_it_starts_at_zero_and_every_parameter_gets_a_gradient():
    fresh = UNet((1, 8, 8), (0.0, 1.0), [8, 16], blocks=2, num_classes=3)
    x, label, classes = torch.randn(4, 1, 8, 8), torch.rand(4), torch.tensor([0, 1, 2, 3])
    assert torch.equal(fresh(x, label, classes), torch.zeros_like(x))
    stirred(fresh)(x, label, classes).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in fresh.parameters())


def test_rms_norm_is_torchs_own_over_the_channels():
    norm, x = stirred(RMSNorm(6)), torch.randn(3, 6, 4, 5)
    expected = rms_norm(x.permute(0, 2, 3, 1), (6,), norm.gain, 1e-5).permute(0, 3, 1, 2)
    assert torch.allclose(norm(x), expected, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 1000.0), (-1.5, 1.1)])
def test_the_embedding_is_a_fourier_series_over_the_range_of_labels(low, high):
    labels = torch.tensor([low, low + (high - low) / 3, high])
    found = FourierEmbedding(5, (low, high))(labels)
    for row, u in zip(found.tolist(), (0.0, 1 / 3, 1.0), strict=True):
        expected = [f(math.pi * k * u) for f in (math.cos, math.sin) for k in range(1, 6)]
        assert row == pytest.approx(expected, abs=2e-4)
    assert torch.equal(FourierEmbedding(3, (0.3, 0.3))(torch.tensor([0.3])), torch.tensor([[1.0, 1, 1, 0, 0, 0]]))


def test_the_embedding_tells_all_labels_of_a_chain_apart():
    found = FourierEmbedding(16, (1.0, 1000.0))(torch.arange(1.0, 1001.0))
    nearest = torch.cdist(found, found).fill_diagonal_(9.0).min()
    assert nearest > 0.01


@pytest.mark.parametrize(("i", "o"), [(6, 6), (6, 4)])
def test_a_block_is_its_formula(i, o):
    block, x, e = stirred(ResidualBlock(i, o, 5, dropout=0.2)), torch.randn(3, i, 7, 4), torch.randn(3, 5)
    film = linear(e, block.scale_and_shift.weight, block.scale_and_shift.bias)
    a, b = film[:, :o, None, None], film[:, o:, None, None]
    h = silu((1 + a) * conv2d(block.norm(x), block.first.weight, block.first.bias, padding=1) + b)
    skip = x if i == o else conv2d(x, block.skip.weight, block.skip.bias)
    expected = skip + conv2d(h, block.second.weight, block.second.bias, padding=1)
    assert torch.allclose(block(x, e), expected, atol=1e-5)


def test_attention_is_its_formula():
    part, x = stirred(Attention(64)), torch.randn(2, 64, 3, 2)
    q, k, v = conv2d(part.norm(x), part.query_key_value.weight, part.query_key_value.bias).flatten(2).chunk(3, dim=1)
    heads = []
    for head in range(2):
        own = slice(32 * head, 32 * head + 32)
        weights = softmax(q[:, own].transpose(1, 2) @ k[:, own] / 32**0.5, dim=-1)
        heads.append((weights @ v[:, own].transpose(1, 2)).transpose(1, 2))
    mixed = torch.cat(heads, dim=1).view_as(x)
    assert torch.allclose(part(x), x + conv2d(mixed, part.out.weight, part.out.bias), atol=1e-5)


def test_attention_at_chosen_levels_lets_far_pixels_meet():
    x, label = torch.zeros(1, 2, 16, 16), torch.rand(1)
    far = x.clone()
    far[..., 0, 0] = 5.0
    for levels, meets in (([], False), ([0], True), ([1], True), ([0, 1], True)):
        model = net((2, 16, 16), attention=levels, patch=1)
        assert (not torch.equal(model(x, label)[..., 15, 15], model(far, label)[..., 15, 15])) == meets
        assert sum(isinstance(part, Attention) for part in model.modules()) == 2 * (0 in levels) + (1 in levels)
    torch.manual_seed(3)
    default = UNet((2, 16, 16), (0.0, 1.0), [8, 16]).state_dict()
    torch.manual_seed(3)
    chosen = UNet((2, 16, 16), (0.0, 1.0), [8, 16], attention=[1]).state_dict()
    assert all(torch.equal(value, chosen[name]) for name, value in default.items())


def test_noise_label_and_class_act_through_the_embedding_alone():
    model, x = net(num_classes=3), torch.randn(1, 2, 8, 8)
    outs = [model(x, torch.tensor([u]), torch.tensor([k])) for u, k in ((0.2, 0), (0.7, 0), (0.2, 1), (0.2, 3))]
    assert all(not torch.allclose(outs[0], other, atol=1e-3) for other in outs[1:])
    assert torch.equal(outs[3], model(x, torch.tensor([0.2])))  # no class
    for block in model.modules():
        if isinstance(block, ResidualBlock):
            nn.init.zeros_(block.scale_and_shift.weight)
    assert torch.equal(model(x, torch.tensor([0.2])), model(x, torch.tensor([0.7]), torch.tensor([1])))


@pytest.mark.parametrize("size", [(16, 16), (9, 13), (5, 4), (17, 30)])
def test_height_and_width_are_treated_alike_at_any_size(size):
    """Kernels, patches and image transposed: the output is transposed."""
    model = net((2, *size), patch=2)
    turned = net((2, *size[::-1]), patch=2)
    turned.load_state_dict({name: _transposed(name, value) for name, value in model.state_dict().items()})
    x, label = torch.randn(2, 2, *size), torch.rand(2)
    assert torch.allclose(turned(x.mT, label), model(x, label).mT, atol=1e-5)


def _transposed(name: str, value: torch.Tensor) -> torch.Tensor:
    """The parameter of the net for transposed images: in a square of 2 x 2 pixels the second and the third change."""
    value = value.mT if value.ndim == 4 else value
    squares = {"first": 1, "contract": 1, "expand": 0, "last": 0}
    part = name.split(".")[0]
    if part in squares and value.ndim > squares[part]:
        axis = squares[part]
        value = value.unflatten(axis, (-1, 2, 2)).transpose(axis + 1, axis + 2).flatten(axis, axis + 2)
    return value


def test_sides_that_do_not_divide_are_padded_and_cropped():
    model, x, label = net((2, 9, 14), patch=2), torch.randn(1, 2, 9, 14), torch.rand(1)
    assert torch.allclose(model(x, label), model(pad(x, (0, 2, 0, 3)), label)[..., :9, :14], atol=1e-6)


def test_the_output_of_a_sample_does_not_depend_on_its_batch():
    model, x, label = net(), torch.randn(5, 2, 8, 8), torch.rand(5)
    assert torch.allclose(model(x, label)[3:4], model(x[3:4], label[3:4]), atol=1e-5)


def test_small_images_are_not_divided_into_patches():
    assert [net((1, side, side)).patch for side in (8, 15, 16, 28)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (2,)}, "needs image data of shape"),
        ({"channels": []}, r"model\.channels must be the width of each level"),
        ({"channels": [8, 0]}, r"model\.channels must be the width of each level"),
        ({"channels": [8, 40]}, r"a width that is a multiple of 32, or less than it, at level 1"),
        ({"channels": [40, 8], "attention": [0]}, r"a width that is a multiple of 32, or less than it, at level 0"),
        ({"attention": [2]}, r"a list of levels from 0 \(the full size\) to 1, got \[2\]"),
        ({"blocks": 0}, r"model\.blocks must be a whole number of at least 1, got 0"),
        ({"patch": 0}, r"model\.patch must be a whole number"),
        ({"embedding_dim": 1.5}, r"model\.embedding_dim must be a whole number"),
        ({"dropout": 1.0}, r"model\.dropout must lie in \[0, 1\), got 1.0"),
        ({"channels": [8] * 5}, r"need sides of at least 16, got 8 x 8; take fewer levels"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_remedy(settings, message):
    with pytest.raises(UserError, match=message) as error:
        net(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "accelerator", "channels_last"),
    [
        (lambda: UNet((1, 16, 16), (0.0, 1.0), [8]), "cpu", True),
        (lambda: SourceUNet((1, 16, 16), 8, 1, norm="none"), "cpu", True),
        (lambda: SourceUNet((1, 16, 16), 8, 1, norm="group"), "cpu", False),
        (lambda: SourceUNet((1, 16, 16), 8, 1, norm="instance"), "cpu", False),
        (lambda: SourceUNet((1, 16, 16), 8, 1, norm="group"), "gpu", True),
    ],
)
def test_weights_have_the_layout_that_suits_the_norms(make, accelerator, channels_last):
    model, x, label = make(), torch.randn(2, 1, 16, 16), torch.rand(2)
    before = model(x, label)
    prepared(model, compile=False, accelerator=accelerator)
    kernels = [weight for weight in model.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert {weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels} == {channels_last}
    assert torch.allclose(model(x, label), before, atol=1e-5)
