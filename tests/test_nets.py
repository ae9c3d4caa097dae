"""Networks: counted, compared with independent arithmetic, and probed for the properties they promise."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from litdiffusion.errors import UserError
from litdiffusion.nets import MLP, Adapter, SourceUNet
from litdiffusion.nets.source_unet import NORMS, ResidualBlock, SinusoidalEmbedding


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


def counted_by_hand(channels, c, depth, e):
    """Parameters of the U-Net from its description: convolutions, norms (two per block) and embedding maps."""

    def block(i, o):
        return (9 * i * o + o) + (9 * o * o + o) + 2 * 2 * o + (i * o + o)

    widths = [c * 2**i for i in range(depth)]
    base = c * (depth + 1)
    total = (channels * c // 2 + c // 2) + (c // 2 * channels + channels)
    for before, width in zip([c // 2, *widths], widths, strict=False):
        total += block(before, width) + e * width + width
    total += block(widths[-1], base)
    for arriving, width in zip([*widths[:-1], base], widths, strict=True):
        total += (e * arriving + arriving) + block(arriving, width) + block(2 * width, width // 2)
    return total


def test_source_unet_of_the_source_has_1_296_833_parameters():
    assert count(SourceUNet((1, 28, 28), base_channels=32, depth=3)) == 1_296_833


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize(("channels", "c", "depth", "e"), [(1, 32, 3, 16), (3, 16, 2, 8), (2, 8, 1, 4), (1, 32, 4, 16)])
def test_source_unet_has_the_parameters_of_its_description(channels, c, depth, e, norm):
    assert count(SourceUNet((channels, 32, 32), c, depth, e, norm=norm)) == counted_by_hand(channels, c, depth, e)


def test_source_unet_parameters_do_not_depend_on_the_size_of_the_image():
    assert count(SourceUNet((1, 17, 40), 8, 2)) == count(SourceUNet((1, 28, 28), 8, 2))


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (13, 8), (11, 23), (5, 4)])
def test_source_unet_treats_height_and_width_alike_at_odd_and_non_square_sizes(size):
    """Kernels transposed and image transposed: the output is transposed."""
    net, turned = SourceUNet((2, *size), 8, 2), SourceUNet((2, *size[::-1]), 8, 2)
    turned.load_state_dict({k: v.transpose(-1, -2) if v.ndim == 4 else v for k, v in net.state_dict().items()})
    x, noise_label = torch.randn(2, 2, *size), torch.tensor([3.0, 80.0])
    torch.testing.assert_close(turned(x.mT, noise_label), net(x, noise_label).mT, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", list(NORMS))
def test_source_unet_output_of_a_sample_does_not_depend_on_its_batch(norm):
    net = SourceUNet((1, 9, 12), 8, 2, norm=norm)
    x, noise_label = torch.randn(3, 1, 9, 12), torch.tensor([1.0, 40.0, 900.0])
    alone = torch.cat([net(x[i : i + 1], noise_label[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, noise_label), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dim", "base"), [(16, 100_000.0), (4, 100.0), (2, 10_000.0)])
def test_sinusoidal_embedding_has_the_values_of_its_formula(dim, base):
    noise_label = torch.tensor([0.0, 1.0, 2.5, 17.0, 1000.0])
    expected = [
        [f(t * base ** (-2 * i / dim)) for f in (math.sin, math.cos) for i in range(1, dim // 2 + 1)]
        for t in noise_label.tolist()
    ]
    np.testing.assert_allclose(SinusoidalEmbedding(dim, base)(noise_label), expected, atol=2e-4)
    np.testing.assert_allclose(SinusoidalEmbedding(dim, base)(noise_label[:3]), expected[:3], atol=1e-6)


def test_embedding_tells_all_labels_of_a_chain_apart():
    embedded = SinusoidalEmbedding(16, 100_000.0)(torch.arange(1.0, 1001))
    distance = torch.cdist(embedded, embedded, compute_mode="donot_use_mm_for_euclid_dist") + 9 * torch.eye(1000)
    assert distance.min() > 0.05


def test_embedding_adds_nothing_to_a_checkpoint():
    assert not [k for k in SourceUNet((1, 8, 8), 8, 2).state_dict() if "frequencies" in k]


def test_label_changes_the_output_and_only_through_the_time_maps():
    net = SourceUNet((1, 8, 8), 8, 2)
    x = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    first, second = net(x, torch.tensor([1.0, 50.0]))
    assert (first - second).abs().max() > 1e-2
    for time_map in [*net.time_down, *net.time_up]:
        nn.init.zeros_(time_map.weight)
    first, second = net(x, torch.tensor([1.0, 50.0]))
    assert torch.equal(first, second)


@pytest.mark.parametrize("norm", ["group", "none"])
def test_gradient_reaches_every_parameter_of_the_unet(norm):
    net = SourceUNet((1, 8, 8), 32, 2, norm=norm)
    net(torch.randn(4, 1, 8, 8), torch.tensor([1.0, 10.0, 100.0, 1000.0])).square().mean().backward()
    assert [name for name, p in net.named_parameters() if not p.grad.abs().max() > 1e-9] == []


def test_gradient_reaches_every_parameter_of_the_mlp():
    net = MLP((2,), (1.0, 100.0))
    net(torch.randn(64, 2), torch.linspace(1, 100, 64)).square().mean().backward()
    assert [name for name, p in net.named_parameters() if not p.grad.abs().max() > 1e-9] == []


def test_instance_norm_equals_torchs_own():
    x = torch.randn(3, 6, 5, 4) * 3 + 7
    torch.testing.assert_close(NORMS["instance"](6)(x), nn.InstanceNorm2d(6)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm", "removes"), [("instance", True), ("group", False), ("none", False)])
def test_only_instance_norm_removes_each_channels_mean(norm, removes):
    x, shift = torch.randn(2, 32, 6, 6), torch.randn(1, 32, 1, 1) * 5
    layer = NORMS[norm](32)
    assert torch.allclose(layer(x + shift), layer(x), atol=1e-4) == removes
    branch = ResidualBlock(16, 32, norm).long(torch.randn(2, 16, 6, 6))
    assert bool((branch.mean((2, 3)).abs() < 1e-5).all()) == removes


def test_residual_block_is_its_formula():
    block = ResidualBlock(3, 4, "none")
    x = torch.randn(2, 3, 6, 5)
    first, second = block.long[0], block.long[3]
    h = conv2d(x, first.weight, first.bias, padding=1).clamp(min=0)
    long = conv2d(h, second.weight, second.bias, padding=1)
    short = torch.einsum("oi,bihw->bohw", block.short.weight[..., 0, 0], x) + block.short.bias[:, None, None]
    torch.testing.assert_close(block(x), long + short, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("c", "depth"), [(4, 2), (10, 1), (12, 1), (6, 3)])
def test_source_unet_builds_for_every_even_width(c, depth):
    assert count(SourceUNet((1, 16, 16), c, depth)) == counted_by_hand(1, c, depth, 16)


def test_instance_norm_refuses_single_pixels():
    with pytest.raises(UserError, match=r"model\.norm=instance removes single pixels, .* 8 x 8 images at depth 3"):
        SourceUNet((1, 8, 8), 8, 3, norm="instance")
    SourceUNet((1, 16, 16), 8, 3, norm="instance")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (2,)}, r"needs image data .*got \(2,\); take model=mlp"),
        ({"shape": (1, 28, 7), "depth": 3}, r"got depth 3 for images of 28 x 7; set model.depth=2 or less"),
        ({"shape": (1, 8, 8), "depth": 0}, r"got depth 0 .*set model.depth=3 or less"),
        ({"shape": (1, 8, 8), "depth": 1, "base_channels": 7}, "must be even and at least 2, got 7"),
        ({"shape": (1, 8, 8), "depth": 1, "base_channels": 0}, "must be even and at least 2, got 0"),
        ({"shape": (1, 8, 8), "depth": 1, "norm": "batch"}, "one of group, instance, none, got 'batch'"),
        ({"shape": (1, 8, 8), "depth": 1, "embedding_dim": 5}, "must be even and at least 2, got 5"),
    ],
)
def test_source_unet_refuses_what_it_cannot_build_and_names_the_remedy(arguments, message):
    with pytest.raises(UserError, match=message):
        SourceUNet(**arguments)


@pytest.mark.parametrize(("side", "depth"), [(8, 3), (15, 3), (4, 2)])
def test_the_depth_that_the_refusal_names_is_the_deepest_that_works(side, depth):
    with pytest.raises(UserError, match=f"set model.depth={depth} or less"):
        SourceUNet((1, side, side), 8, depth + 1)
    net = SourceUNet((1, side, side), 8, depth)
    assert torch.isfinite(net(torch.randn(2, 1, side, side), torch.ones(2))).all()


@pytest.mark.parametrize("noise_label_range", [(1.0, 1000.0), (1.0, 2.0), (-3.0, 5.0)])
def test_mlp_appends_the_label_rescaled_to_minus_half_and_half(noise_label_range):
    low, high = noise_label_range
    net, seen = MLP((3,), noise_label_range), []
    net.layers[0][0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(3, 3)
    net(x, torch.tensor([low, (low + high) / 2, high]))
    assert torch.equal(seen[0][:, :3], x)
    assert seen[0][:, 3].tolist() == [-0.5, 0.0, 0.5]


@pytest.mark.parametrize(("hidden", "layers"), [(16, 1), (8, 3)])
def test_mlp_is_a_chain_of_linear_maps_and_relus(hidden, layers):
    net = MLP((2,), (1.0, 11.0), hidden, layers)
    maps = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in maps] == [(3, hidden)] + [(hidden, hidden)] * (layers - 1) + [
        (hidden, 2)
    ]
    x, noise_label = torch.randn(5, 2), torch.tensor([1.0, 3.0, 6.0, 8.5, 11.0])
    h = torch.cat([x, ((noise_label - 6) / 10)[:, None]], 1)
    for m in maps[:-1]:
        h = (h @ m.weight.T + m.bias).clamp(min=0)
    torch.testing.assert_close(net(x, noise_label), h @ maps[-1].weight.T + maps[-1].bias, rtol=1e-5, atol=1e-6)


def test_mlp_flattens_images_and_restores_them():
    image, flat = MLP((2, 3, 4), (1.0, 10.0), 16), MLP((24,), (1.0, 10.0), 16)
    flat.load_state_dict(image.state_dict())
    x, noise_label = torch.randn(5, 2, 3, 4), torch.arange(1.0, 6)
    assert torch.equal(image(x, noise_label), flat(x.flatten(1), noise_label).view(5, 2, 3, 4))


@pytest.mark.parametrize(("hidden", "layers"), [(0, 3), (8, 0), (-1, -1)])
def test_mlp_refuses_no_hidden_layer(hidden, layers):
    with pytest.raises(UserError, match=f"at least 1, got {hidden} and {layers}"):
        MLP((2,), (1.0, 10.0), hidden, layers)


class Foreign(nn.Module):
    """A net from elsewhere: takes a condition only where there is one, returns a record."""

    def forward(self, x, noise_label, *more):
        out = x * noise_label.view(-1, 1) + sum(more)
        return SimpleNamespace(sample=out, arguments=len(more) + 2)


def test_adapter_unpacks_a_record_and_passes_the_condition_only_where_there_is_one():
    x, noise_label, class_label = torch.ones(2, 3), torch.tensor([2.0, 5.0]), torch.tensor(10.0)
    net, arguments = Adapter(Foreign(), output="sample"), Adapter(Foreign(), output="arguments")
    assert net(x, noise_label).tolist() == [[2.0] * 3, [5.0] * 3]
    assert net(x, noise_label, class_label).tolist() == [[12.0] * 3, [15.0] * 3]
    assert (arguments(x, noise_label), arguments(x, noise_label, class_label)) == (2, 3)


def test_adapter_without_a_field_returns_the_output_itself():
    inner = MLP((2,), (1.0, 10.0), 8)
    x, noise_label = torch.randn(4, 2), torch.arange(1.0, 5)
    assert torch.equal(Adapter(inner)(x, noise_label), inner(x, noise_label))
