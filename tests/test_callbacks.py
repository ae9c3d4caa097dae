"""What a run draws: the right states, from the same noise, within its share of the time."""

import csv
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import TINY_UNET, UNDRAWN, composed
from PIL import Image

from litdiffusion.callbacks import Trajectory
from litdiffusion.callbacks.pictures import evenly_spaced, level_titles, noised_like, states_of, target_name
from litdiffusion.codecs import Identity, Standardise
from litdiffusion.diffusion.levels import CLEAN, seeded_noise
from litdiffusion.diffusion.samplers import State
from litdiffusion.diffusion.schedules import VE, VP, LinearChain, NoiseLadder
from litdiffusion.errors import UserError


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("count", "shown", "kept"), [(201, 26, 26), (51, 26, 26), (9, 26, 9), (2, 26, 2), (1, 5, 1)])
def test_shown_states_are_spread_evenly_from_first_to_last(count, shown, kept):
    places = sorted(evenly_spaced(count, shown))
    assert len(places) == kept
    assert (places[0], places[-1]) == (0, count - 1)
    gaps = {b - a for a, b in pairwise(places)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_source_s_every_eighth_of_200_states_is_26_shown():
    assert sorted(evenly_spaced(201, 26)) == list(range(0, 201, 8))
    assert evenly_spaced(50, 1) == {49}


def test_states_are_the_samplers_own(built):
    module = built("schedule.steps=25").module
    module.trainer = built("schedule.steps=25").trainer
    states = states_of(module, module.sampler, 4, "raw", 3, shown=6)
    noise = seeded_noise(3)
    x = noise(torch.empty(4, 2))
    whole = list(module.sampler.trajectory(module.denoiser, x, noise=noise))
    assert torch.equal(states[0].x, x)
    for state, index in zip(states, (0, 5, 10, 15, 20, 25), strict=True):
        assert torch.equal(state.x, whole[index].x)
        assert state.level.t == whole[index].level.t


def test_pictures_are_made_at_the_interval_and_at_the_end(trained):
    folder = trained(
        "trainer.max_steps=10",
        "trainer.val_check_interval=10",
        "trainer.log_every_n_steps=5",
        "callbacks.trajectory.every_n_steps=4",
        "callbacks.trajectory.max_share=null",
        "callbacks.trajectory.points=50",
        "callbacks.trajectory.shown=6",
        "callbacks.final_samples=null",
        "callbacks.field=null",
        "schedule.steps=40",
    )
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    steps = [f"trajectory_step_{step:06d}.png" for step in (4, 8, 10)]
    assert names == ["forward_process.png", "trajectory.gif", *steps]
    with Image.open(folder / "pictures" / "trajectory.gif") as gif:
        assert gif.n_frames == 6  # states 0, 8, 16, 24, 32, 40 of the chain
    assert (
        0 < float([row for row in rows(folder) if row.get("time/drawing_percent")][-1]["time/drawing_percent"]) <= 100
    )


def test_pictures_do_not_change_the_run(trained, tmp_path):
    options = ["trainer.max_steps=8", "callbacks.trajectory.points=50", "callbacks.final_samples=null"]
    often = trained(*options, "callbacks.trajectory.every_n_steps=1", "schedule.steps=25", folder="often")
    never = trained(*options, *UNDRAWN[:-1], "schedule.steps=25", folder="never")
    first, second = (torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (often, never))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_averaged_and_raw_weights_draw_different_pictures_from_the_same_noise(fitted):
    module = fitted("ema_decay=0.999", "optimizer.lr=0.1", "schedule.steps=25").module
    ema, raw, again = (states_of(module, module.sampler, 8, weights, 0, 8) for weights in ("ema", "raw", "ema"))
    assert torch.equal(ema[0].x, raw[0].x)
    assert not torch.equal(ema[-1].x, raw[-1].x)
    assert torch.equal(ema[-1].x, again[-1].x)


def test_a_chain_longer_than_the_budget_is_respaced(built, tmp_path):
    experiment = built("schedule.steps=100")
    module, trainer = experiment.module, experiment.trainer
    module.trainer = trainer
    trajectory = Trajectory(tmp_path, steps=40, shown=6, points=10, facts=experiment.facts)
    trajectory.on_fit_start(trainer, module)
    trajectory.save_picture(trainer, module)
    indices = [round(state.level.t.item() * 100) for state in trajectory.states]
    assert indices == [100, 80, 60, 40, 20, 0]


def test_images_draw_their_chains_and_the_final_grid(trained):
    folder = trained(
        *(*TINY_UNET, "conditional=false", "schedule.steps=25"),
        *("callbacks.trajectory.chains=3", "callbacks.final_samples.images=4"),
    )
    with Image.open(folder / "pictures" / "samples.png") as grid:
        assert abs(grid.width - grid.height) <= 2  # two by two square digits
    assert (folder / "pictures" / "trajectory_step_000004.png").is_file()


def test_vectors_are_measured_against_the_noise_floor(trained):
    folder = trained("data.size=600", "callbacks.final_samples.points=400", "schedule.steps=25")
    measured = [row for row in rows(folder) if row.get("samples/wasserstein")]
    assert len(measured) == 1
    assert float(measured[0]["samples/wasserstein_over_floor"]) > 1


def test_fewer_samples_are_drawn_after_few_steps_unless_their_number_is_set(trained, monkeypatch, capsys):
    def line(folder: str, *overrides: str) -> str:
        alone = [word for word in UNDRAWN if "final_samples" not in word]
        trained("data.size=600", "schedule.steps=25", *alone, *overrides, folder=folder)
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("samples: Wasserstein"))

    monkeypatch.setattr("litdiffusion.callbacks.final_samples.FEW_POINTS", 300)
    assert line("few").endswith("x floor (n = 300 and no density estimates after fewer than 100 steps, sets: 1)")
    assert line("set", "callbacks.final_samples.points=400").endswith("(n = 400, sets: 1)")
    monkeypatch.setattr("litdiffusion.callbacks.final_samples.SHORT", 4)  # the steps of these runs
    monkeypatch.setattr("litdiffusion.callbacks.final_samples.POINTS", 500)
    assert line("many").endswith("(n = 500, sets: 1)")


def test_diverged_samples_are_shown_and_not_measured(trained, monkeypatch):
    monkeypatch.setattr(
        "litdiffusion.callbacks.final_samples.FinalSamples._final_state",
        lambda *_: State(torch.full((9, 2), torch.nan), CLEAN),
    )
    folder = trained("data.size=600", "schedule.steps=25", "callbacks.trajectory=null")
    assert (folder / "pictures" / "samples.png").is_file()
    assert not any(row.get("samples/wasserstein") for row in rows(folder))


@pytest.mark.parametrize("name", ["every_n_steps", "chains", "shown"])
def test_nonsense_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=f"callbacks.trajectory.{name} must be at least 1, got 0"):
        Trajectory(tmp_path, **{name: 0})


def test_the_sources_preset_draws_every_ten_steps():
    cfg = composed("experiment=mnist_source").callbacks.trajectory
    assert (cfg.every_n_steps, cfg.chains, cfg.shown, cfg.max_share) == (10, 10, 26, None)


def test_panels_are_named_after_what_tells_the_levels_of_a_process_apart():
    assert level_titles(LinearChain(50), LinearChain(50).grid(2)) == ["t = 50", "t = 25", "t = 0"]
    assert level_titles(VE(0.1, 10.0), VE(0.1, 10.0).grid(3)) == ["σ = 10", "σ = 1", "σ = 0.1", "σ = 0"]
    assert level_titles(VP(), VP().grid(3)) == ["t = 1.00", "t = 0.50", "t = 0.00", "t = 0.00"]


def test_a_walk_that_ends_at_a_noise_level_is_compared_with_data_noised_to_it():
    data = torch.zeros(4000, 2)
    level = NoiseLadder(torch.tensor([3.0])).at(1.0)
    blurred, clean = State(data, level), State(data, CLEAN)
    assert target_name(blurred) == "noised data"
    assert noised_like(blurred, data, Identity()).std().item() == pytest.approx(3.0, rel=0.05)
    far = noised_like(blurred, data + 50.0, Standardise([50.0, 50.0], [10.0, 20.0]))  # noised in model space
    assert far.std(0).tolist() == pytest.approx([30.0, 60.0], rel=0.05)
    assert target_name(clean) == "data"
    assert noised_like(clean, data, Identity()) is data


def test_langevin_samples_are_measured_against_noised_data_and_tell_the_modes_weights(trained, capsys):
    trained(
        "data=two_gaussians",
        "data.size=600",
        "data.standardise=false",
        "codec=identity",
        "recipe=dsm",
        "schedule.sigma=3",
        "sampler.steps=20",
        "callbacks.final_samples.points=400",
        "callbacks.final_samples.origin_radius=5",
        "callbacks.trajectory.points=50",
    )
    out = capsys.readouterr().out
    assert "Wasserstein distance to noised data" in out
    assert "weights of the modes: " in out
    assert "within 5 of the origin: 100.00 % of samples" in out  # 20 short steps from N(0, I)
