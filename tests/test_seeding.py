"""Every stream of random numbers has a name and numbers of its own."""

import ast
import sys
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import TINY, composed

import litdiffusion
from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.diffusion.likelihood import Exact, Hutchinson, dequantised
from litdiffusion.diffusion.seeding import STREAMS, fold_seed, item_seed

PACKAGE = Path(litdiffusion.__file__).parent
SEEDERS = ("fold_seed", "item_seed", "_seed_of", "_numpy_seed")
CONSTANT = ("data/base.py", "_HOLD_OUT_SEED")


def calls():
    """(file, function's name, its arguments) of every call in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                yield path.relative_to(PACKAGE).as_posix(), name, node.args


def test_every_stream_is_listed_and_every_listed_stream_is_used():
    used = [
        word.value
        for _, name, arguments in calls()
        if name in SEEDERS
        for word in arguments
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    ]
    assert set(used) == set(STREAMS)
    # The same name in two places would be one stream: fresh points and rows of a finite set are one purpose.
    assert {name for name in used if used.count(name) > 1} == {"fresh"}


def test_no_seed_is_folded_without_a_name():
    for path, name, arguments in calls():
        if name == "fold_seed" and path != "diffusion/seeding.py":
            assert any(not isinstance(word, ast.Constant) or isinstance(word.value, str) for word in arguments), path
            assert len(arguments) >= 2, path


@pytest.mark.parametrize("draw", [torch.randn, torch.rand], ids=["normal", "uniform"])
def test_the_first_draws_of_all_streams_of_one_seed_are_uncorrelated(draw):
    """1000 numbers each: correlations of chance have deviation 0.032; all pairs stay below 5 of them."""
    seeds = [fold_seed(0, name) for name in STREAMS] + [item_seed("samples", i) for i in range(1, 4)] + [0]
    rows = np.array([draw(1000, generator=torch.Generator().manual_seed(seed)).numpy() for seed in seeds])
    found = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(found).max() < 5 * 1000**-0.5
    signs = np.corrcoef(np.where(rows < np.median(rows), -1, 1)) - np.eye(len(rows))
    assert np.abs(signs).max() < 5 * 1000**-0.5


def test_a_million_items_of_one_stream_and_of_others_have_seeds_of_their_own():
    names = ("samples", "bound_item", "inpainting")
    low = {name: item_seed(name, 0) % 2**32 for name in names}
    for one, other in combinations(names, 2):  # ranges of 10 million items from seed 0 on
        assert 10**7 < (low[one] - low[other]) % 2**32 < 2**32 - 10**7
    seeds = {item_seed("samples", item) % 2**32 for item in (*range(1000), 2**32 - 1, 2**32, 2**32 + 1)}
    assert len(seeds) == 1003
    assert item_seed("samples", 7) == item_seed("samples", 3 + 4)


def test_names_of_any_length_and_integers_beside_them_count():
    seeds = [fold_seed(0, "dequantisation"), fold_seed(0, "dequantised"), fold_seed(0, "d"), fold_seed(1, "d")]
    seeds += [fold_seed("d", 0), fold_seed(0, "d", 0), fold_seed(0, "d", 1), fold_seed(0)]
    assert len(set(seeds)) == len(seeds)


class Recorded(torch.Generator):
    """A generator that notes each seed, as mt19937 reads it, with the function of the package that asked for it."""

    places: ClassVar[dict[int, set]] = {}

    def manual_seed(self, seed):
        frame = sys._getframe(1)
        while frame.f_code.co_filename.endswith(("diffusion/levels.py", "samplers/draws.py")):
            frame = frame.f_back
        Recorded.places.setdefault(seed % 2**32, set()).add(frame.f_code.co_qualname)
        super().manual_seed(seed)
        return self


def test_a_run_and_its_reports_seed_no_two_places_alike(monkeypatch, command, tmp_path):
    """One run with every callback, then samples, evaluation, likelihoods and inpainting, all with seed 0."""
    monkeypatch.setattr(torch, "Generator", Recorded)
    Recorded.places.clear()
    small = ["data.size=300", "data.val_size=50", "data.batch_size=50", "model.hidden=8", "schedule.steps=25"]
    small += ["callbacks.trajectory.points=50", "callbacks.final_samples.points=50"]
    small += [
        "callbacks.live_quality.samples=50",
        "callbacks.live_quality.steps=5",
        "callbacks.live_likelihood.items=4",
    ]
    folder = tmp_path / "run"
    train(composed(*TINY, *small), Run(folder))
    given = [f"ckpt={folder}/checkpoints/last.ckpt", "device=cpu", "seed=0"]
    for script, *more in (
        ("sample", "n=5"),
        ("evaluate", "n=50", "samplers=ddim", "steps=5"),
        ("likelihood", "n=5"),
        ("likelihood", "n=5", "method=flow", "probes=1", "rtol=1e-2", "atol=1e-2"),
        ("inpaint", "n=2", "samples=5", "steps=5", "resample=1"),
    ):
        status, _, err = command(f"scripts/{script}.py", *given, *more, f"out={tmp_path}/{script}{len(more)}")
        assert status == 0, err
    assert len(Recorded.places) > 50
    assert {seed: places for seed, places in Recorded.places.items() if len(places) > 1} == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", ["rademacher", "normal"])
def test_probes_and_the_noise_on_bytes_do_not_share_numbers_of_one_seed(law, dtype):
    x = torch.zeros(1, 20_000, dtype=dtype)
    uniform = (dequantised(x, 5) * 127.5 + 0.5)[0]
    probes = Hutchinson(1, law, seed=5).directions(x)[0, 0]
    for harmonic in (uniform, (2 * torch.pi * uniform).cos(), (2 * torch.pi * uniform).sin()):
        for shift in range(-9, 10):
            assert abs(np.corrcoef(harmonic, probes.roll(shift))[0, 1]) < 5 * 20_000**-0.5


def test_hutchinson_s_estimate_at_dequantised_bytes_is_unbiased_with_one_seed():
    """``f_i = sin(u_i) * sum_j -cos(u_j)`` with the noise u in bins: its Jacobian holds the outer product of sin u.

    Box and Muller make normals of sin and cos of uniform numbers: probes from the same numbers would have its signs.
    """
    gaps = []
    for seed in range(80):
        x = dequantised(torch.zeros(1, 64), seed).requires_grad_()
        u = 2 * torch.pi * (x * 127.5 + 0.5)
        field = u.sin() * -u.cos().sum() / (2 * torch.pi * 127.5)
        pair = [Hutchinson(1, seed=seed), Exact()]
        estimate, exact = (divergence_of(field, x, each) for each in pair)
        gaps.append(estimate - exact)
    gap = torch.cat(gaps)
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5


def divergence_of(field, x, method):
    total = torch.zeros(len(x))
    for e in method.directions(x.detach()):
        (gradient,) = torch.autograd.grad(field, x, e.expand_as(x), retain_graph=True)
        total += (gradient * e).sum(1)
    return total
