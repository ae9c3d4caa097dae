"""DiT and the residual MLP: their formulas, counts and symmetries, and what they refuse."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm, linear, pad, rms_norm, silu, softmax

from litdiffusion.errors import UserError
from litdiffusion.nets import DiT, ResidualMLP
from litdiffusion.nets.dit import Block, rotary_angles, turned
from litdiffusion.nets.residual_mlp import CoordinateFeatures


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def stirred(module: nn.Module) -> nn.Module:
    """The module with random parameters, also where it starts at zero."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else parameter.shape[1] ** -0.5)
    return module.eval()


def dit(shape=(2, 8, 6), **settings) -> DiT:
    return stirred(DiT(shape, **{"noise_label_range": (0.0, 1.0), "width": 16, "depth": 2, "heads": 2, **settings}))


@pytest.mark.parametrize(("width", "depth", "patch", "classes", "out"), [(16, 2, 2, 3, 2), (8, 1, 3, 0, 4)])
def test_dit_has_the_parameters_of_its_description(width, depth, patch, classes, out):
    net, square, w = DiT((2, 9, 9), (0.0, 1.0), width, depth, 2, patch, out, classes), patch**2, width
    conditioning = (32 * w + w) + (w * w + w) + (classes + 1) * w * (classes > 0)
    block = (3 * w * w + 3 * w) + (w * w + w) + (4 * w * w + 4 * w) + (4 * w * w + w) + (6 * w * w + 6 * w)
    ends = (2 * square * w + w) + (2 * w * w + 2 * w) + (w * out * square + out * square)
    assert sum(p.numel() for p in net.parameters()) == conditioning + depth * block + ends


def test_the_product_of_turned_vectors_depends_on_the_difference_of_places_alone():
    query, key = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    angles = rotary_angles(5, 7, 8, query.device).double()

    def product(a: tuple[int, int], b: tuple[int, int]) -> float:
        return float(turned(query, angles[7 * a[0] + a[1]]) @ turned(key, angles[7 * b[0] + b[1]]))

    assert product((0, 0), (0, 0)) == pytest.approx(float(query @ key))
    assert product((1, 2), (3, 5)) == pytest.approx(product((0, 0), (2, 3)), rel=1e-5)
    assert product((1, 2), (3, 5)) != pytest.approx(product((0, 0), (3, 2)), rel=1e-2)
    # complex numbers: a pair turns by row * w_i or column * w_i
    found = torch.view_as_complex(turned(query, angles[7 * 2 + 3]).view(2, 4).mT.contiguous())
    phase = torch.tensor([2 * 1.0, 2 * 0.1, 3 * 1.0, 3 * 0.1], dtype=torch.float64)
    expected = torch.view_as_complex(query.view(2, 4).mT.contiguous()) * torch.polar(torch.ones_like(phase), phase)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_block_of_dit_is_its_formula():
    block, x, c = stirred(Block(8, 2)), torch.randn(3, 6, 8), torch.randn(3, 8)
    angles = rotary_angles(2, 3, 4, x.device)
    a1, b1, g1, a2, b2, g2 = linear(c, block.modulation.weight, block.modulation.bias)[:, None].split(8, dim=-1)
    q, k, v = block.query_key_value((1 + a1) * layer_norm(x, (8,), eps=1e-6) + b1).split(8, dim=-1)
    heads = []
    for own in (slice(0, 4), slice(4, 8)):
        weights = softmax(turned(q[..., own], angles) @ turned(k[..., own], angles).mT / 2, dim=-1)
        heads.append(weights @ v[..., own])
    h = x + g1 * block.out(torch.cat(heads, dim=-1))
    first, _, second = block.mlp
    expected = h + g2 * second(gelu(first((1 + a2) * layer_norm(h, (8,), eps=1e-6) + b2), approximate="tanh"))
    torch.testing.assert_close(block(x, c, angles), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (5, 4), (1, 3)])
def test_sides_that_are_no_multiples_of_the_patch_are_padded_and_cropped(size):
    net, x, label = dit((2, *size)), torch.randn(1, 2, *size), torch.rand(1)
    whole = pad(x, (0, size[1] % 2, 0, size[0] % 2))
    assert net(x, label).shape == x.shape
    torch.testing.assert_close(net(x, label), net(whole, label)[..., : size[0], : size[1]])


def test_places_matter():
    net, x, label = dit(patch=1), torch.randn(2, 2, 8, 6), torch.rand(2)
    assert not torch.allclose(net(x.roll(1, 2), label), net(x, label).roll(1, 2), atol=1e-3)
    assert not torch.allclose(net(x.roll(1, 3), label), net(x, label).roll(1, 3), atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (DiT((1, 8, 8), (0.0, 1.0), 16, 2, 2, num_classes=3), (1, 8, 8)),
        lambda: (ResidualMLP((3,), (0.0, 1.0), 16, 2, 2, num_classes=3), (3,)),
    ],
    ids=["dit", "residual_mlp"],
)
def test_it_starts_at_zero_and_every_parameter_gets_a_gradient(make):
    fresh, shape = make()
    x, label, classes = torch.randn(4, *shape), torch.rand(4), torch.tensor([0, 1, 2, 3])
    assert torch.equal(fresh(x, label, classes), torch.zeros_like(x))
    stirred(fresh)(x, label, classes).square().sum().backward()
    assert [name for name, p in fresh.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_the_features_of_a_coordinate_are_a_fourier_series():
    x = torch.tensor([[0.5, -2.0]])
    found = CoordinateFeatures(2)(x)[0].tolist()
    series = [f(math.pi * k * value / 4) for f in (math.cos, math.sin) for value in (0.5, -2.0) for k in (1, 2)]
    assert found == pytest.approx([0.5, -2.0, *series], abs=1e-6)
    assert torch.equal(CoordinateFeatures(0)(x), x)


def test_the_residual_mlp_is_its_formula():
    net = stirred(ResidualMLP((3,), (0.0, 1.0), hidden=6, blocks=2, terms=1, embedding_dim=5, num_classes=2))
    x, label, classes = torch.randn(4, 3), torch.rand(4), torch.tensor([0, 1, 2, 2])
    told = net.conditioning
    e = silu(told.layers(told.fourier(label)) + told.class_embedding.table.weight[classes])
    h = net.first(torch.cat([x, (math.pi / 4 * x).cos(), (math.pi / 4 * x).sin()], 1))
    for block in net.blocks:
        a, b = block.scale_and_shift(e).split(6, dim=1)
        normed = rms_norm(h, (6,), block.norm.gain, 1e-5)
        h = h + block.second(silu((1 + a) * block.first(normed) + b))
    expected = net.last(silu(rms_norm(h, (6,), net.norm.gain, 1e-5)))
    torch.testing.assert_close(net(x, label, classes), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dit((2,)), r"needs image data of shape .*got \(2,\); take model=residual_mlp"),
        (lambda: dit(width=18), r"multiple of 4 \* model\.heads = 8, .* got 18"),
        (lambda: dit(depth=0), r"model\.depth must be a whole number of at least 1, got 0"),
        (lambda: dit(patch=1.5), r"model\.patch must be a whole number of at least 1, got 1.5"),
        (lambda: ResidualMLP((2,), (0.0, 1.0), blocks=0), r"model\.blocks must be a whole number of at least 1, got 0"),
        (lambda: ResidualMLP((2,), (0.0, 1.0), terms=-1), r"model\.terms must be a whole number of at least 0, got -1"),
        (lambda: ResidualMLP((2,), (0.0, 1.0), dropout=1), r"model\.dropout must lie in \[0, 1\), got 1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_remedy(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
