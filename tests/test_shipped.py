"""The digits model of the package: small, told of in its card, and still good."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from litdiffusion.data import Digits, bytes_to_floats
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.locations import SHIPPED, shipped

FOLDER = SHIPPED / "digits"


def energy(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of vectors (n, d) and (m, d)."""
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


def test_digits_are_drawn_by_one_word_without_data(command, tmp_path, monkeypatch):
    def refuse() -> None:
        raise AssertionError("sampling needs no data")

    monkeypatch.setattr("sklearn.datasets.load_digits", refuse)
    status, out, err = command("scripts/sample.py", "digits", "n=4", "class_label=[3,7]", "steps=2")
    assert status == 0, err
    assert "outputs/digits/samples_000" in out
    drawn = np.load(tmp_path / "outputs" / "digits" / "samples_000" / "samples.npz")
    assert (drawn["samples"].shape, drawn["class_labels"].tolist()) == ((4, 1, 8, 8), [3, 7, 3, 7])
    status, _, err = command("scripts/sample.py", "digitz")
    assert (status, "did you mean digits?" in err) == (2, True)


def test_a_path_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    with pytest.raises(UserError, match=r"digits/config\.json is missing"):
        Pretrained("digits")


def test_samples_are_digits_of_the_class_asked_for_and_as_near_to_the_data_as_held_out_ones(digits: Digits):
    model = Pretrained("digits")
    count = 100
    samples, asked = model.sample(count, seed=1000).flatten(1), model.class_labels(count)
    train, held_out = (bytes_to_floats(part.data).flatten(1) for part in (digits.train, digits.val))
    nearest = digits.train.class_label[torch.cdist(samples, train).argmin(1)]
    assert (nearest == asked).float().mean() >= 0.97
    orders = [torch.randperm(len(held_out), generator=torch.Generator().manual_seed(i))[:count] for i in range(4)]
    floor = sum(energy(held_out[order], train) for order in orders) / len(orders)
    assert energy(samples, train) < 1.5 * floor


def test_the_files_are_small_and_name_no_machine():
    assert shipped() == ["digits"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000
    text = (FOLDER / "config.json").read_text()
    assert json.loads(text)["weights"] == "ema"
    assert not re.search(r'"/\w+/', text)


def test_the_card_has_its_numbers():
    card = (FOLDER / "README.md").read_text()
    assert "litdiffusion train experiment=digits_small" in card
    row = next(line for line in card.splitlines() if line.startswith("| ema | own (Heun) | 15 |"))
    titles = next(line for line in card.splitlines() if line.startswith("| weights | sampler"))
    values = dict(zip(titles.split(" | "), row.split(" | "), strict=True))
    assert float(values["n"]) >= 1000
    ratio, spread = map(float, values["frechet_over_floor"].split(" ± "))
    assert ratio < 1.5
    assert spread < 0.5
    assert float(values["class_accuracy"].split(" ± ")[0]) > 0.95
    for word in ("| held-out data |", "CPU seconds", "seed", "MIT", "Alpaydin"):
        assert word in card
