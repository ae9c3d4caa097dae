"""Several processes draw for their items what one process draws for the joined batch."""

import pytest
import torch

from litdiffusion.data import Augment
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.schedules import LinearChain
from litdiffusion.diffusion.times import UniformTimes
from litdiffusion.training.class_labels import with_class_dropout
from litdiffusion.training.conditions import with_dropout
from litdiffusion.training.joined import Joined

WORLD = 3


def processes() -> list[Joined]:
    return [Joined(rank, WORLD, torch.Generator().manual_seed(5)) for rank in range(WORLD)]


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """The items of all processes in the order of the joined batch."""
    return torch.stack(parts, dim=1).flatten(0, 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_noise_is_that_of_one_process(memory_format):
    whole = torch.zeros(12, 3, 4, 5).to(memory_format=memory_format)
    torch.manual_seed(5)
    expected = Joined().normal(whole)
    torch.manual_seed(5)
    assert torch.equal(torch.randn_like(whole), expected)
    parts = [draws.normal(whole[:4]) for draws in processes()]
    assert all(part.is_contiguous(memory_format=memory_format) for part in parts)
    assert torch.equal(joined(parts), expected)
    rows = [place.rows(seeded_noise(7))(whole[:4]) for place in processes()]
    assert torch.equal(joined(rows), seeded_noise(7)(whole))


def test_what_is_dropped_is_that_of_one_process():
    labels, values = torch.arange(12) % 4, torch.randn(12, 2)
    torch.manual_seed(5)
    expected = with_class_dropout(labels, 4, 0.3), with_dropout(values, 0.3)
    labels_of, values_of = (torch.stack(list(x.split(WORLD)), dim=1) for x in (labels, values))
    parts = [
        (with_class_dropout(labels_of[k], 4, 0.3, draws.uniform), with_dropout(values_of[k], 0.3, draws.uniform))
        for k, draws in enumerate(processes())
    ]
    assert torch.equal(joined([part[0] for part in parts]), expected[0])
    assert torch.equal(joined([part[1] for part in parts]).nan_to_num(9), expected[1].nan_to_num(9))


def test_images_change_as_in_one_process():
    images, augment = torch.rand(12, 1, 6, 6), Augment(flip=True, shift=2)
    parts = [augment(images[k::WORLD], 0, 3, 1, rank=k, world=WORLD) for k in range(WORLD)]
    assert torch.equal(joined(parts), augment(images, 0, 3, 1))


def test_times_are_those_of_one_process():
    times, x_0 = UniformTimes(LinearChain(steps=1000)), torch.zeros(12, 2)
    parts = [times.draw(x_0[:4], (k + 0.25) / WORLD).t for k in range(WORLD)]
    torch.testing.assert_close(joined(parts), times.draw(x_0, 0.25).t, rtol=1e-12, atol=0)
