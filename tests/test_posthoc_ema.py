"""Post-hoc averages: closed forms, agreement with averages that are tracked directly, bit-equal resume, bounds."""

import math
import signal
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import BARE_RUN, composed
from lottery.outcome import fingerprint
from test_cli import one_error

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.training.checkpoints import read_checkpoint, read_file
from litdiffusion.training.posthoc import Profile, decay, fit, gamma_of, inner, width_of

STEPS = 96
SMALL = [*BARE_RUN, "callbacks=posthoc_ema", "data=moons", "data.size=600", "data.val_size=200", "data.batch_size=50"]
SMALL += ["model.hidden=16", "schedule.steps=50", f"trainer.max_steps={STEPS}", "trainer.val_check_interval=60"]
SMALL += ["save_every=5", "metrics=none", "threads=1", "trainer.enable_progress_bar=false"]


def closed_form(gamma: float, t: int) -> np.ndarray:
    """The weight (t,) of every step in the profile: the integral of ``(gamma + 1) tau^gamma / t^(gamma + 1)``."""
    edges = (np.arange(t + 1) / t) ** (gamma + 1)
    return edges[1:] - edges[:-1]


def tracked(path: np.ndarray, gamma: float) -> list[np.ndarray]:
    """The average after every step of a path (t, d) of weights."""
    average, averages = np.zeros(path.shape[1]), []
    for t, weights in enumerate(path, 1):
        average = decay(gamma, t) * average + (1 - decay(gamma, t)) * weights
        averages.append(average)
    return averages


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.2886])
def test_gamma_has_the_width_of_the_closed_form_and_of_its_profile(width):
    gamma = gamma_of(width)
    assert width_of(gamma) == pytest.approx(width, rel=1e-9)
    weights, times = closed_form(gamma, 20_000), (np.arange(20_000) + 0.5) / 20_000
    mean = weights @ times
    assert math.sqrt(weights @ (times - mean) ** 2) == pytest.approx(width, rel=1e-5)


def test_the_numbers_of_the_paper():
    """Karras et al. 2023, section 3.1: gamma = 16.97 and 6.94 have the widths 0.05 and 0.10; gamma = 0 is the mean."""
    assert [round(gamma_of(width), 2) for width in (0.05, 0.1)] == [16.97, 6.94]
    assert gamma_of(12**-0.5) == pytest.approx(0, abs=1e-9)
    for width in (0, -0.1, 0.3, float("nan"), "x"):
        with pytest.raises(UserError, match=r"the width of an average must lie in \(0, 0.288\], got"):
            gamma_of(width)


@pytest.mark.parametrize("width", [0.05, 0.2])
def test_the_recursion_gives_the_integral(width):
    path = np.random.default_rng(0).normal(size=(50, 3)).cumsum(0)
    gamma = gamma_of(width)
    for t, average in enumerate(tracked(path, gamma), 1):
        np.testing.assert_allclose(average, closed_form(gamma, t) @ path[:t], rtol=1e-12)


def test_inner_products_are_integrals():
    profiles = [Profile(gamma_of(w), t) for w, t in ((0.05, 0.6), (0.1, 1.0), (0.25, 0.3))]
    tau = (np.arange(200_000) + 0.5) / 200_000
    values = np.array([(p.gamma + 1) / p.t * (tau / p.t) ** p.gamma * (tau < p.t) for p in profiles])
    np.testing.assert_allclose(inner(profiles, profiles), values @ values.T / len(tau), rtol=1e-4)


@pytest.mark.parametrize(("width", "most"), [(0.02, 2e-3), (0.03, 1e-3), (0.07, 1e-4), (0.15, 1e-3), (0.2, 1e-3)])
def test_a_random_walk_is_averaged_as_if_it_had_been_tracked(width, most):
    """Weights of spread 1 that wander by as much, at a constant rate: the hardest path. 32 snapshots in float16."""
    t, random = 1600, np.random.default_rng(0)
    path = random.normal(size=300) + random.normal(size=(t, 300)).cumsum(0) / t**0.5
    parts, profiles = [], []
    for gamma in map(gamma_of, (0.05, 0.1)):
        averages = tracked(path, gamma)
        for step in range(50, t + 1, 50):
            last = step == t
            parts.append(averages[step - 1] if last else averages[step - 1].astype(np.float16).astype(float))
            profiles.append(Profile(gamma, step, rounded=not last))
    coefficients, error = fit(profiles, Profile(gamma_of(width), t))
    assert coefficients.sum() == pytest.approx(1, abs=1e-9)
    assert error < 0.05
    direct = closed_form(gamma_of(width), t) @ path
    assert np.linalg.norm(coefficients @ np.array(parts) - direct) < most * np.linalg.norm(direct)


class Recorder(L.Callback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.path: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.path[trainer.global_step] = {k: w.detach().clone() for k, w in pl_module.denoiser.named_parameters()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Recorder]:
    """A small training with the callback, and its weights after every step."""
    folder, recorder = tmp_path_factory.mktemp("runs") / "run", Recorder()
    train(composed(*SMALL), Run(folder, extra_callbacks=(recorder,)))
    return folder, recorder


@pytest.mark.parametrize("width", [0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2])
@pytest.mark.parametrize("checkpoint", ["last", "best_*"])
def test_an_average_of_a_training_equals_the_one_tracked_directly(checkpoint, width, recorded):
    folder, recorder = recorded
    (file,) = (folder / "checkpoints").glob(f"{checkpoint}.ckpt")
    t = read_checkpoint(file)["global_step"]
    denoiser = Pretrained(file, ema=width).denoiser
    shares = torch.tensor(closed_form(gamma_of(width), t))
    for name, weight in denoiser.named_parameters():
        path = torch.stack([recorder.path[step][name].double() for step in range(1, t + 1)])
        direct = torch.tensordot(shares, path, 1)
        bound = {0.02: 3e-3, 0.05: 1e-6, 0.1: 1e-6}.get(width, 1e-3)
        assert (weight - direct).norm() <= bound * direct.norm() + 1e-9, name


def test_the_plain_average_is_not_touched(recorded, tmp_path):
    folder, _ = recorded
    train(composed(*(word for word in SMALL if word != "callbacks=posthoc_ema")), Run(tmp_path / "plain"))
    a, b = (read_checkpoint(path / "checkpoints/last.ckpt")["state_dict"] for path in (folder, tmp_path / "plain"))
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_a_stopped_run_ends_with_the_same_averages_and_snapshots(recorded, tmp_path, monkeypatch):
    folder, _ = recorded

    class Stop(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 50:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(composed(*SMALL), Run(tmp_path / "run", extra_callbacks=(Stop(),)))
    ahead = tmp_path / "run/posthoc_ema/step_00000060.pt"  # as a killed attempt leaves it
    ahead.write_bytes(b"")
    train(composed(*SMALL), Run(tmp_path / "run"))
    states = [
        read_checkpoint(f / "checkpoints/last.ckpt")["callbacks"]["PosthocEMA"] for f in (folder, tmp_path / "run")
    ]
    assert states[0]["step"] == states[1]["step"] == STEPS
    for one, two in zip(states[0]["averages"], states[1]["averages"], strict=True):
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    files = [sorted((f / "posthoc_ema").iterdir()) for f in (folder, tmp_path / "run")]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(*files, strict=True))
    assert fingerprint(folder) == fingerprint(tmp_path / "run")


def test_snapshots_are_few_and_small(recorded, tmp_path):
    folder, _ = recorded
    steps = [int(path.stem[5:]) for path in sorted((folder / "posthoc_ema").iterdir())]
    assert steps == list(range(3, STEPS + 1, 3))
    assert {v.dtype for v in read_file(folder / "posthoc_ema/step_00000003.pt")["averages"][0].values()} == {
        torch.float16
    }
    counts = []

    class Count(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            counts.append(len(list((tmp_path / "run/posthoc_ema").glob("*"))))

    few = ["callbacks.posthoc_ema.kept=8", "callbacks.posthoc_ema.every_n_steps=1", "trainer.max_steps=40"]
    train(composed(*SMALL, *few), Run(tmp_path / "run", extra_callbacks=(Count(),)))
    assert max(counts) == 8
    left = [int(path.stem[5:]) for path in sorted((tmp_path / "run/posthoc_ema").iterdir())]
    assert left == [8, 16, 24, 32, 40]


def refused(result: tuple[int, str, str]) -> str:
    return one_error(result[0], result[2])


def test_what_cannot_be_given_is_one_line(recorded, tmp_path, command):
    folder, _ = recorded
    last = folder / "checkpoints/last.ckpt"
    line = refused(command("scripts/sample.py", f"ckpt={last}", "ema=0.005", "n=4"))
    assert "ema=0.005 is out of reach of the 31 snapshots" in line
    assert "they give widths from 0.014 to 0.27" in line
    assert "must lie in (0, 0.288], got 0.4" in refused(command("scripts/sample.py", f"ckpt={last}", "ema=0.4"))
    assert "leave out one" in refused(command("scripts/sample.py", f"ckpt={last}", "ema=0.05", "weights=raw"))
    assert "ema=[0.05,0.1]" in refused(command("scripts/evaluate.py", f"ckpt={last}", "ema=0.05,0.1"))
    alone = tmp_path / "alone/checkpoints/last.ckpt"  # without snapshots only the tracked widths are left
    alone.parent.mkdir(parents=True)
    alone.write_bytes(last.read_bytes())
    Pretrained(alone, ema=0.05)
    with pytest.raises(UserError, match="out of reach of the 0 snapshots"):
        Pretrained(alone, ema=0.02)
    damaged = alone.parent.parent / "posthoc_ema"
    damaged.mkdir()
    (damaged / "step_00000003.pt").write_bytes((folder / "posthoc_ema/step_00000003.pt").read_bytes()[:-9] + b"x" * 9)
    with pytest.warns(UserWarning, match=r"step_00000003.pt is damaged and left out"):
        Pretrained(alone, ema=0.05)
    with pytest.raises(UserError, match=r"widths needs two different widths or more, got \[0.1\]"):
        train(composed(*SMALL, "callbacks.posthoc_ema.widths=[0.1]"), Run(tmp_path / "one"))
    train(composed(*BARE_RUN), Run(tmp_path / "plain"))
    with pytest.raises(UserError, match="has no averages of other widths; train with callbacks=posthoc_ema"):
        Pretrained(tmp_path / "plain/checkpoints/last.ckpt", ema=0.05)


def test_an_export_holds_the_average_and_every_script_takes_it(recorded, tmp_path, command):
    folder, _ = recorded
    last = folder / "checkpoints/last.ckpt"
    status, out, err = command("scripts/export.py", f"ckpt={last}", "ema=0.1", f"out={tmp_path}/model")
    assert status == 0, err
    assert "exported the ema weights of the width 0.1" in out
    ours, theirs, plain = Pretrained(last, ema=0.1), Pretrained(tmp_path / "model"), Pretrained(last)
    assert torch.equal(ours.sample(5), theirs.sample(5))
    assert not torch.equal(ours.sample(5), plain.sample(5))
    few = {"likelihood": ["n=10"], "inpaint": ["x=[0]", "samples=5", "steps=3", "resample=1"]}
    for script, words in few.items():
        for name, where in {"ours": [f"ckpt={last}", "ema=0.1"], "theirs": [f"ckpt={tmp_path}/model"]}.items():
            status, _, err = command(f"scripts/{script}.py", *where, *words, f"out={tmp_path}/{name}_{script}")
            assert status == 0, err
    tables = [(tmp_path / f"{name}_likelihood/likelihood.csv").read_text() for name in ("ours", "theirs")]
    assert tables[0] == tables[1]
    drawn = [np.load(tmp_path / f"{name}_inpaint/inpainting.npz")["samples"] for name in ("ours", "theirs")]
    assert np.array_equal(*drawn)
    assert "asks for none" in refused(command("scripts/export.py", f"ckpt={last}", "ema=0.1", "weights=raw", "out=x"))


@pytest.mark.slow
def test_evaluate_has_a_row_and_a_point_for_each_width(recorded, tmp_path, command):
    folder, _ = recorded
    options = ["ema=[0.03,0.05,0.15]", "samplers=ddim", "steps=5", "n=100", "metrics=vectors", "device=cpu"]
    options += ["metrics.distances=[wasserstein]"]
    status, out, err = command(
        "scripts/evaluate.py", f"ckpt={folder}/checkpoints/last.ckpt", *options, f"out={tmp_path}/r"
    )
    assert status == 0, err
    assert [line.split()[1:3] for line in out.splitlines() if line.startswith("run/last  ")] == [
        ["ema", "ddim"],
        *(["ema", width] for width in ("0.03", "0.05", "0.15")),
    ]
    assert (tmp_path / "r/ema.png").is_file()
