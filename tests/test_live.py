"""Measures during training: the numbers of a direct computation, that choose checkpoints and never stop a run."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from conftest import TINY, TINY_UNET, composed
from test_clock import Hand
from test_processes import start
from torch import Tensor

from litdiffusion.build import Experiment, Run, build
from litdiffusion.callbacks import FinalSamples, LiveLikelihood, LiveQuality
from litdiffusion.callbacks.pictures import limited_sampler
from litdiffusion.commands.training import train
from litdiffusion.data.toy_module import ToyData
from litdiffusion.data.toys import Mixture
from litdiffusion.diffusion.denoisers import ExactOutput, GaussianMixtureDenoiser
from litdiffusion.diffusion.levels import CLEAN, Level, seeded_noise
from litdiffusion.diffusion.parameterizations import Epsilon
from litdiffusion.diffusion.samplers import Ancestral, Draws
from litdiffusion.diffusion.schedules import LinearChain
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import Estimate
from litdiffusion.measure.quality import Measured, Quality, VectorQuality
from litdiffusion.reports.likelihood import likelihood_to_files
from litdiffusion.training import DiffusionModule, clock
from litdiffusion.training.class_labels import classes_in_proportion
from litdiffusion.training.quartiles import NAMES, quartile_sums

SMALL = ["data=gaussian_mixture", "model.hidden=8", "model.layers=1", "data.batch_size=200", "schedule.steps=25"]
SMALL += ["data.size=1000", "data.val_size=200", "logger=csv", "metrics.distances=[wasserstein]"]
ALONE = ["callbacks.trajectory=null", "callbacks.forward_process=null", "callbacks.field=null"]
ALONE += ["callbacks.final_samples=null", "callbacks.progress_bar=null", "trainer.enable_progress_bar=false"]
LIVE = [*TINY, *SMALL, *ALONE, "callbacks.live_quality.samples=300", "callbacks.live_quality.max_share=null"]
LIVE += ["trainer.max_steps=8", "optimizer.lr=0.05", "trusted=[test_live]"]
UNLIKELY, UNMEASURED = "callbacks.live_likelihood=null", "callbacks.live_quality=null"


class Scripted(Quality):
    """Metrics that are known beforehand: ``scores`` one after the other, of which ``score`` is better higher."""

    headline, names, rising, live = "loss", ("loss", "score"), frozenset({"score"}), 20

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__()
        self.scores = iter(scores)

    def measure(
        self, samples: Tensor, n: int | None = None, level: Level = CLEAN, class_labels: Tensor | None = None
    ) -> Measured:
        value = next(self.scores)
        return {name: Estimate(value, 0.0, len(samples)) for name in self.names}

    def rivals(self, n: int, level: Level = CLEAN, baselines: bool = True) -> dict[str, Measured]:
        return {}

    def legend(self) -> str:
        return "scripted"


def scripted(*scores: float) -> list[str]:
    kept = [option for option in LIVE if not option.startswith("metrics.")]
    metrics = ["metrics=none", "+metrics._target_=test_live.Scripted", f"+metrics.scores={list(scores)}"]
    return [*kept, *metrics, UNLIKELY, "callbacks.live_quality.samples=20", "callbacks.live_quality.steps=2"]


class Recorder(L.Callback):
    """Draws and measures by its own few lines at every validation; ``count`` is less than a block."""

    def __init__(self, count: int) -> None:
        self.count, self.rows = count, {}

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        noise = seeded_noise(fold_seed(fold_seed(0, "live_quality"), "block", 0))
        x = pl_module.denoiser.schedule.prior_std * noise(torch.empty(self.count, 1))
        x = Ancestral(steps=25).sample(pl_module.ema.model, x, noise=noise)
        measured = VectorQuality(["wasserstein"]).attach(trainer.datamodule).measure(x)
        self.rows[trainer.global_step] = measured["wasserstein"].value


def rows(folder: Path, column: str) -> dict[int, float]:
    """The column of the run's table where it has a number, by the steps that were done; a row counts them from 0."""
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]) + 1: float(row[column]) for row in csv.DictReader(file) if row.get(column)}


def fit(folder: Path, *overrides: str, callback: L.Callback | None = None) -> Experiment:
    experiment = build(composed(*overrides), Run(folder))
    experiment.trainer.callbacks += [callback] if callback else []
    experiment.trainer.fit(experiment.module, experiment.data)
    return experiment


def test_a_user_s_own_metrics_measure_the_final_samples_too(tmp_path):
    """With the abstract methods alone; the line and the picture name its own main number."""
    experiment = build(composed(*LIVE, UNLIKELY, UNMEASURED), Run(tmp_path))
    final = FinalSamples(tmp_path, Scripted([0.5]).attach(experiment.data), points=50)
    experiment.trainer.callbacks.append(final)
    experiment.trainer.fit(experiment.module, experiment.data)
    assert experiment.trainer.callback_metrics["samples/score"] == 0.5
    assert final.summary().startswith("samples: distance to data 0.5000 = 0.50 ± 0.00 x floor")
    assert (tmp_path / "pictures/samples.png").is_file()


def test_live_numbers_are_those_of_a_direct_computation_on_averaged_weights(tmp_path):
    recorder = Recorder(300)
    experiment = fit(tmp_path, *LIVE, UNLIKELY, callback=recorder)
    live = rows(tmp_path, "quality/wasserstein")
    assert list(live) == [4, 8]
    assert live == pytest.approx(recorder.rows, rel=1e-6)
    assert live[4] != live[8]
    floor = VectorQuality(["wasserstein"]).attach(experiment.data).rivals(300)["data"]["wasserstein"].value
    assert rows(tmp_path, "quality/wasserstein_over_floor")[8] == pytest.approx(live[8] / floor)
    shares = rows(tmp_path, "time/quality_percent")
    assert all(0 < share < 100 for share in shares.values())


def test_raw_weights_measure_otherwise_and_the_table_s_interval_does_not(tmp_path):
    options = [*LIVE, UNLIKELY, "trainer.val_check_interval=4"]
    ema, often, raw = (
        rows_of(tmp_path / name, [*options, *more])
        for name, more in (
            ("ema", ["trainer.log_every_n_steps=4"]),
            ("often", ["trainer.log_every_n_steps=1"]),
            ("raw", ["callbacks.live_quality.weights=raw"]),
        )
    )
    assert ema == often
    assert ema.keys() == raw.keys() == {4, 8}
    assert all(abs(ema[step] - raw[step]) > 1e-3 for step in ema)


def rows_of(folder: Path, overrides: list[str]) -> dict[int, float]:
    fit(folder, *overrides)
    return rows(folder, "quality/wasserstein")


def test_measuring_does_not_change_the_run(tmp_path):
    states = [
        fit(tmp_path / str(k), *LIVE, *more).module.state_dict() for k, more in enumerate(([], [UNLIKELY, UNMEASURED]))
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def law_denoiser() -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(LinearChain(25), torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.tensor(0.1))


def test_a_block_is_a_function_of_its_place_alone():
    draws = Draws(Ancestral(), law_denoiser(), (1,))
    in_order = [draws.block(k, 6, seed=3).x for k in range(4)]
    assert all(torch.equal(draws.block(k, 6, seed=3).x, in_order[k]) for k in (3, 1, 2, 0))
    assert torch.cat(in_order).unique().numel() == 24
    assert not torch.equal(draws.block(0, 6, seed=4).x, in_order[0])


def test_the_classes_of_blocks_are_those_of_the_samples_places():
    asked = []

    class Asked(GaussianMixtureDenoiser):
        def forward(self, x_t, level, class_label=None):
            asked.append(class_label.tolist())
            return super().forward(x_t, level)

    denoiser = Asked(LinearChain(25), torch.ones(1), torch.zeros(1, 1), torch.tensor(1.0))
    draws = Draws(Ancestral(steps=2), denoiser, (1,))
    for index in (0, 1, 2):
        draws.block(index, 4, seed=0, class_labels=torch.arange(6))
    assert [asked[0], asked[2], asked[4]] == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]


@pytest.mark.parametrize("count", [40, 130])
def test_samples_do_not_depend_on_how_processes_share_them(count, built, monkeypatch):
    monkeypatch.setattr("litdiffusion.callbacks.live_quality.BLOCK", {1: 32})
    experiment = built(*SMALL[:7])
    module, callback = experiment.module, LiveQuality(None)
    module.trainer = experiment.trainer

    def drawn(rank: int, world: int) -> tuple[Tensor, Tensor]:
        trainer = SimpleNamespace(world_size=world, global_rank=rank, datamodule=experiment.data)
        gathered = []
        monkeypatch.setattr(module, "all_gather", lambda mine: gathered.append(mine) or torch.stack([mine] * world))
        whole, level, _ = callback._draw_samples(trainer, module, count)
        assert level.is_clean
        return whole, gathered[0] if gathered else whole

    alone, _ = drawn(0, 1)
    parts = [drawn(rank, 3)[1] for rank in range(3)]  # (blocks, size, 1) of each process
    monkeypatch.setattr(module, "all_gather", lambda mine: torch.stack(parts))
    trainer = SimpleNamespace(world_size=3, global_rank=0, datamodule=experiment.data)
    together, _, _ = callback._draw_samples(trainer, module, count)
    assert alone.shape == together.shape == (count, 1)
    assert torch.equal(alone, together)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path):
    """A learning rate of 0 keeps the weights, so that only the division of the samples differs."""
    options = [*LIVE, "optimizer.lr=0", "data.batch_size=100", "trainer.max_steps=4", "trainer.accelerator=cpu"]
    for name, more in (("one", []), ("two", ["trainer=ddp", "trainer.devices=2"])):
        run = start(tmp_path / name, *more, *options, "callbacks.live_quality.samples=1300")
        assert run.wait(timeout=300) == 0, run.stdout.read()
    for column in ("quality/wasserstein", "likelihood/nats"):
        assert rows(tmp_path / "one", column) == pytest.approx(rows(tmp_path / "two", column), rel=1e-6)


@pytest.mark.parametrize(("metric", "best"), [("quality/loss", 4), ("quality/score", 6)])
def test_a_metric_chooses_the_best_checkpoint_and_is_returned(metric, best, tmp_path):
    """The values 3, 1, 5, 2 at steps 2, 4, 6, 8: least at 4, largest at 6."""
    cfg = composed(*scripted(3.0, 1.0, 5.0, 2.0), f"metric={metric}", "trainer.val_check_interval=2")
    assert train(cfg, Run(tmp_path)) == 2.0
    assert cfg.derived.mode == ("min" if metric == "quality/loss" else "max")
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names - {"previous.ckpt"} == {f"best_step_{best:06d}.ckpt", "last.ckpt"}


@pytest.mark.parametrize("scores", [(5.0, 4.0, *[4.0] * 20), (5.0, 4.0, 9.0, *[4.5] * 20)])
def test_a_run_that_no_longer_improves_is_stopped(scores, tmp_path):
    """The best of all at the second validation, step 4; patience 5 ends the run at the seventh."""
    options = [*scripted(*scores), "trainer.max_steps=40"]
    cfg = composed(*options, "callbacks=early_stopping", "metric=quality/loss", "trainer.val_check_interval=2")
    assert train(cfg, Run(tmp_path)) == scores[6]
    assert list(rows(tmp_path, "quality/loss")) == [2, 4, 6, 8, 10, 12, 14]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()} - {"previous.ckpt"}
    assert names == {"best_step_000004.ckpt", "last.ckpt"}


def test_samples_that_are_not_finite_are_nan_and_no_improvement(tmp_path, monkeypatch):
    """The second of three drawings diverges; the run, its best checkpoint and its callbacks go on."""
    honest, calls = Draws.block, iter(range(100))

    def diverging(self, *args):
        end = honest(self, *args)
        return end._replace(x=end.x * math.nan) if next(calls) == 1 else end

    monkeypatch.setattr(Draws, "block", diverging)
    options = [*scripted(3.0, 4.0), "trainer.max_steps=6", "trainer.val_check_interval=2"]
    assert train(composed(*options, "callbacks=early_stopping", "metric=quality/loss"), Run(tmp_path)) == 4.0
    found = rows(tmp_path, "quality/loss")
    assert (found[2], found[6]) == (3.0, 4.0)
    assert math.isnan(found[4])
    assert (tmp_path / "checkpoints" / "best_step_000002.ckpt").is_file()


def test_a_flow_that_cannot_be_solved_yet_stops_nothing(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise UserError("the flow cannot be solved")

    monkeypatch.setattr("litdiffusion.callbacks.live_likelihood.quick_nats", refuse)
    monkeypatch.setattr(Draws, "block", refuse)
    with pytest.warns(UserWarning, match="the flow cannot be solved") as told:
        experiment = fit(tmp_path, *LIVE)
    assert experiment.trainer.global_step == 8
    assert sum("no likelihood at step 4" in str(warning.message) for warning in told) == 1
    assert not any("step 8" in str(warning.message) for warning in told)
    assert all(math.isnan(value) for value in rows(tmp_path, "quality/wasserstein").values())


@pytest.mark.parametrize("monitored", [False, True])
def test_measurements_keep_to_their_share_but_where_they_are_monitored(monitored, tmp_path, monkeypatch):
    """A step takes 10 s and a measurement 10 s, on a clock moved by hand: 10 % are one of about ten steps."""
    hand = Hand()
    monkeypatch.setattr(clock, "time", hand)
    honest = Scripted.measure
    monkeypatch.setattr(Scripted, "measure", lambda *a, **k: hand.passes(10) or honest(*a, **k))

    class Slow(L.Callback):
        def on_train_batch_start(self, *args) -> None:
            hand.passes(10)

    options = [*scripted(*[1.0] * 30), "trainer.max_steps=30", "trainer.val_check_interval=1"]
    options += ["trainer.log_every_n_steps=1"]
    options += ["callbacks.live_quality.max_share=0.1", *(["metric=quality/loss"] if monitored else [])]
    fit(tmp_path, *options, callback=Slow())
    expected, shares, elapsed, done = [], {}, 0, 0
    for step in range(1, 31):
        elapsed += 10
        if done:  # the row of a step stands before its validation
            shares[step] = 100 * 10 * done / elapsed
        if monitored or not done or 10 * (done + 1) <= 0.1 * elapsed:
            expected.append(step)
            done, elapsed = done + 1, elapsed + 10
    assert list(rows(tmp_path, "quality/loss")) == expected
    assert rows(tmp_path, "time/quality_percent") == pytest.approx(shares)
    assert len(expected) == (30 if monitored else 3)


ABSENT = "metrics.features.weights=/nowhere/inception.pth"


def test_missing_weights_are_one_line_and_the_run_goes_on(tmp_path, monkeypatch):
    draws = []
    honest = Draws.block
    monkeypatch.setattr(Draws, "block", lambda self, index, *more: draws.append(index) or honest(self, index, *more))
    images = [*TINY, *TINY_UNET, *ALONE, UNLIKELY, "metrics=inception", ABSENT, "schedule.steps=25", "logger=csv"]
    images += ["callbacks.live_quality.samples=20", "callbacks.live_quality.steps=2", "trainer.max_steps=8"]
    with pytest.warns(UserWarning, match="goes on without live quality: Inception features need") as told:
        experiment = fit(tmp_path / "run", *images)
    lines = [str(warning.message) for warning in told if "live quality" in str(warning.message)]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert experiment.trainer.global_step == 8
    assert "quality/frechet" not in (tmp_path / "run" / "metrics.csv").read_text()
    assert draws == [0]  # nothing is drawn for a second measurement
    with pytest.raises(UserError, match="Inception features need"):
        fit(tmp_path / "monitored", *images, "metric=quality/frechet")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"samples": 19}, r"live_quality\.samples must be at least 20, got 19"),
        ({"steps": 1}, r"live_quality\.steps must be at least 2, got 1"),
        ({"weights": "emma"}, r"live_quality\.weights must be ema or raw, got 'emma'"),
    ],
)
def test_nonsense_is_refused(setting, message):
    with pytest.raises(UserError, match=message):
        LiveQuality(None, **setting)
    with pytest.raises(UserError, match=r"live_likelihood\.steps must be at least 2, got 1"):
        LiveLikelihood(steps=1)


class OneMode(ToyData):
    """N(0, 0.5²) in its own units."""

    mixture_in_data_units, shape = Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([0.5])), (1,)

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        return self.mixture_in_data_units.sample(n, generator)


def test_the_best_possible_loss_is_the_closed_form_by_quartile(tmp_path):
    """E|eps - E[eps | x_t]|² = alpha² s² / (alpha² s² + sigma²), the mean over the levels of each quartile."""
    data = ["data._target_=test_live.OneMode", "data.standardise=false", "data.val_size=40000", "data.batch_size=1000"]
    options = [*LIVE, *data, UNLIKELY, UNMEASURED, "schedule.steps=100", "trainer.max_steps=4"]
    experiment = fit(tmp_path, *options)
    level = experiment.module.denoiser.schedule.at(torch.arange(1, 101, dtype=torch.float64) / 100)
    expected = 0.25 * level.alpha**2 / (0.25 * level.alpha**2 + level.sigma**2)
    for k, name in enumerate(NAMES):
        best = rows(tmp_path, f"val/best_loss_{name}")[4]
        quarter = expected[25 * k : 25 * (k + 1)]
        error = math.sqrt((3 * (quarter**2).mean() - quarter.mean() ** 2) / 10_000)  # of a scaled chi-square
        assert abs(best - quarter.mean().item()) < 4 * error, name
        assert best < rows(tmp_path, f"val/loss_{name}")[4]
    assert rows(tmp_path, "val/best_loss")[4] == pytest.approx(expected.mean().item(), rel=0.03)


def test_the_loss_stays_above_the_best_possible_one(tmp_path):
    fit(tmp_path, *LIVE, UNLIKELY, UNMEASURED, "trainer.max_steps=100", "trainer.val_check_interval=25")
    loss, best = rows(tmp_path, "val/loss"), rows(tmp_path, "val/best_loss")
    assert list(loss) == list(best) == [25, 50, 75, 100]
    assert all(best[step] < loss[step] for step in loss)
    assert len(set(best.values())) == 1  # the same items, times and noise
    assert loss[100] < loss[25]


def test_there_is_no_best_loss_where_the_law_is_unknown(tmp_path):
    swapped = [option for option in LIVE if option != "data=gaussian_mixture"]
    fit(tmp_path, "data=moons", *swapped, UNLIKELY, UNMEASURED, "trainer.max_steps=4")
    assert not rows(tmp_path, "val/best_loss")


def test_an_optimal_output_is_the_mean_of_the_target():
    schedule = LinearChain(25)
    denoiser = GaussianMixtureDenoiser(schedule, torch.ones(1), torch.zeros(1, 1), torch.tensor(2.0))
    level = schedule.at(torch.tensor(0.4, dtype=torch.float64))
    x_t, out = torch.tensor([[1.5]]), ExactOutput(denoiser, Epsilon())
    alpha, sigma = level.alpha.item(), level.sigma.item()
    assert out.outputs(x_t, level)[0].item() == pytest.approx(1.5 * sigma / (4 * alpha**2 + sigma**2), rel=1e-5)
    sums = quartile_sums(torch.tensor([0.25, 0.26, 1.0]), torch.tensor([1.0, 2.0, 4.0]))
    assert sums.tolist() == [[1, 1, 0, 1], [1, 2, 0, 4]]


def script_row(folder: Path, **settings) -> dict[str, str]:
    """The last term that scripts/likelihood.py writes of the run's last checkpoint, and its total."""
    given = [f"{key}={value}" for key, value in settings.items()]
    ckpt, device = folder / "checkpoints" / "last.ckpt", "device=cpu"
    cfg = composed(f"ckpt={ckpt}", device, *given, config_name="likelihood")
    with (likelihood_to_files(cfg) / "likelihood.csv").open() as file:
        table = {row["term"].split(" (")[0]: row for row in csv.DictReader(file)}
    return table[settings["method"]] | {"law": table.get("exact density of the data", {}).get("nats")}


def test_live_nats_are_those_of_the_likelihood_script(tmp_path):
    """Points in continuous time: the flow with an exact divergence has no noise, at equal tolerances no difference."""
    options = [option for option in LIVE if not option.startswith("schedule.")]
    fit(
        tmp_path,
        "recipe=vp",
        *options,
        UNMEASURED,
        "callbacks.live_likelihood.items=40",
        "trainer.max_steps=60",
        "trainer.val_check_interval=60",
    )
    row = script_row(tmp_path, method="flow", n=40, rtol=1e-3, atol=1e-3)
    assert rows(tmp_path, "likelihood/nats")[60] == pytest.approx(float(row["nats"]), rel=1e-4)
    assert rows(tmp_path, "likelihood/nats_best")[60] == pytest.approx(float(row["law"]), rel=1e-5)


def test_live_bits_are_those_of_the_likelihood_script_up_to_their_noise(tmp_path):
    """Images: the bound of the same shorter chain on the same items, each side from its own draw of noise."""
    images = [*TINY, *TINY_UNET, *ALONE, UNMEASURED, "logger=csv", "trainer.max_steps=4", "schedule.steps=100"]
    fit(tmp_path, *images, "callbacks.live_likelihood.items=48", "callbacks.live_likelihood.steps=20")
    row = script_row(tmp_path, method="bound", n=48, steps=20)
    error = float(row["standard_error"]) / 64 / math.log(2)
    live = rows(tmp_path, "likelihood/bits_per_dimension")[4]
    assert abs(live - float(row["bits_per_dimension"])) < 4 * error
    assert error < 0.1 * live


def test_classes_are_drawn_in_their_proportions(built):
    """A conditional model's live samples are asked for the classes of the data, and measured with them."""
    experiment = built(*TINY_UNET, "conditional=true", "schedule.steps=25")
    module = experiment.module
    module.trainer = experiment.trainer
    trainer = SimpleNamespace(world_size=1, global_rank=0, datamodule=experiment.data)
    x, _, class_labels = LiveQuality(None, steps=2)._draw_samples(trainer, module, 40)
    assert len(x) == len(class_labels) == 40
    assert torch.equal(class_labels, classes_in_proportion(experiment.data.train.class_label, 40))
    shares = torch.bincount(class_labels, minlength=10) / 40
    assert (
        shares - torch.bincount(experiment.data.train.class_label) / len(experiment.data.train.class_label)
    ).abs().max() < 0.06
    assert limited_sampler(module, 2).calls(module.denoiser.schedule) <= 2


def test_where_the_time_goes_adds_up(tmp_path):
    """Sections of the clock never overlap, so their shares are at most the whole."""
    fit(tmp_path, *LIVE, "trainer.log_every_n_steps=2")
    sections = ("step", "data", "validation", "quality", "likelihood")
    shares = [rows(tmp_path, f"time/{name}_percent") for name in sections]
    last = max(shares[0])
    assert all(share[last] > 0 for share in shares)
    assert sum(share[last] for share in shares) <= 100 + 1e-6
