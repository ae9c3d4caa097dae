"""A net on images of a size that it cannot take: the message names sizes that work."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUIET, TINY, composed
from PIL import Image
from torch import nn

from litdiffusion.build import Run, build
from litdiffusion.config.shapes import size_remedy
from litdiffusion.errors import UserError


class Halving(nn.Module):
    """Halves and doubles an image: sides must be multiples of ``factor``."""

    def __init__(self, factor: int, rounds: bool = False):
        super().__init__()
        self.factor, self.rounds = factor, rounds

    def forward(self, x, noise_label, class_label=None):
        small = nn.functional.avg_pool2d(x, self.factor)
        large = small.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return large if self.rounds else large + x


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(
    ("factor", "sides", "sizes"),
    [
        (2, (33, 33), ["32x32", "34x34"]),
        (8, (28, 28), ["24x24", "32x32"]),
        (4, (30, 64), ["28x64", "32x64"]),
        (16, (9, 9), ["16x16"]),
    ],
)
def test_the_nearest_sizes_below_and_above_are_named(factor, sides, sizes, rounds):
    remedy = size_remedy(Halving(factor, rounds), (1, *sides))
    assert re.findall(r"\d+x\d+", remedy) == sizes
    for size in sizes:
        height, width = map(int, size.split("x"))
        assert Halving(factor)(torch.zeros(1, 1, height, width), None).shape[2:] == (height, width)
    first = sizes[0].split("x")
    setting = first[0] if first[0] == first[1] else f"[{first[0]},{first[1]}]"
    assert f"data.image_size={setting} " in remedy


def test_nothing_is_named_where_nothing_works():
    class Never(nn.Module):
        def forward(self, x, noise_label, class_label=None):
            raise RuntimeError("no")

    assert size_remedy(Never(), (1, 9, 9)) == ""
    assert size_remedy(Never(), (2,)) == ""


def test_a_net_of_diffusers_says_which_sizes_it_takes_and_takes_them(tmp_path: Path):
    pytest.importorskip("diffusers")
    for i in range(8):
        image = np.random.default_rng(i).integers(0, 256, (15, 15), np.uint8)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    data = ["data=image_folder", f"data.path={tmp_path}", "data.batch_size=2", "data.val_size=2", "metrics=none"]
    words = [*TINY, *QUIET, "model=diffusers_unet", *data, "data.channels=1"]

    def attempt(size: int) -> None:
        build(composed(*words, f"data.image_size={size}"), Run(tmp_path / f"run{size}"))

    with pytest.raises(UserError) as error:
        attempt(15)
    assert "sizes (height x width) that work: 14x14 and 16x16, e.g. data.image_size=14" in str(error.value)
    attempt(14)
    attempt(16)
