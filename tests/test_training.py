"""Training as a whole: it learns, it validates honestly, it resumes bit for bit, it stops before it breaks."""

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import QUIET, TINY, TINY_UNET, UNDRAWN, composed
from resuming import whole_and_resumed

from litdiffusion.build import Run, build
from litdiffusion.callbacks.pictures import states_of
from litdiffusion.config.identity import check_fits
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.levels import per_sample_noise
from litdiffusion.diffusion.objectives import DenoisingObjective, Losses
from litdiffusion.diffusion.samplers.base import prior
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.training.checkpoints import read_checkpoint
from litdiffusion.training.length import total_steps


@pytest.mark.slow
def test_overfits_eight_points(built):
    experiment = built(
        "trainer.max_steps=1500",
        "trainer.val_check_interval=1500",
        "schedule.steps=50",
        "data.batch_size=256",
        "optimizer.lr=5e-3",
        "ema_decay=0.99",
    )
    points = experiment.data.train.data[:8]
    experiment.data.train = Batch(points.repeat(64, 1))
    experiment.trainer.fit(experiment.module, experiment.data)
    samples = states_of(experiment.module, experiment.module.sampler, 256, "ema", 0, 10**9)[-1].x
    distances = torch.cdist(samples, points)
    assert distances.min(1).values.median() < 0.1  # samples lie on the points, whose coordinates have variance 1
    assert distances.argmin(1).unique().numel() == 8  # on every one of them


RESUMED = {
    "vectors": ["data.batch_size=3000"],
    "images": TINY_UNET,
    "adaptive": ["data.batch_size=3000", "recipe=edm", "times=loss_aware", "times.bins=4", "times.warmup=1"],
}


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED)
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(options, tmp_path):
    overrides = [*TINY, "callbacks=none", "logger=none", "trainer.enable_progress_bar=false", "trainer.max_steps=12"]
    overrides += ["trainer.val_check_interval=3", *options]
    whole, resumed = whole_and_resumed(overrides, 7, tmp_path)
    assert whole.trainer.global_step == 12
    first, second = (e.trainer.optimizers[0].state_dict()["state"] for e in (whole, resumed))
    for key in first:
        assert all(torch.equal(first[key][field], second[key][field]) for field in ("exp_avg", "exp_avg_sq", "step"))
    assert whole.trainer.callback_metrics["val/loss"] == resumed.trainer.callback_metrics["val/loss"]


HOOKS = {
    **dict.fromkeys(("on_train_start", "on_train_epoch_start"), (0, 4)),
    **dict.fromkeys(("on_train_batch_start", "on_before_backward", "on_after_backward"), (1, 3, 5)),
    **dict.fromkeys(("on_train_batch_end", "on_validation_start", "on_validation_end"), (1, 4, 5)),
    **dict.fromkeys(("on_train_epoch_end", "on_train_end"), (4, 8)),
}
"""Hooks that a callback may save in, with some numbers of steps that are done when Lightning calls them."""


class Saver(L.Callback):
    """Saves in every hook of `HOOKS`, the first time that it is called after each number of steps."""

    def __init__(self, folder):
        self.folder = folder

    def _save(self, name, trainer):
        path = self.folder / f"{name}_{trainer.global_step}.ckpt"
        if trainer.global_step in HOOKS[name] and not path.exists():
            trainer.save_checkpoint(path, weights_only=False)


for name in HOOKS:
    setattr(Saver, name, lambda self, trainer, *_, name=name: self._save(name, trainer))


@pytest.mark.slow
def test_a_checkpoint_from_any_hook_resumes_bit_for_bit(tmp_path, monkeypatch):
    """Epochs of seven batches, steps of two (the last of an epoch of one), a validation every three batches.

    A resumed run trains on the batches that the weights do not know yet, each once and with the same random numbers.
    """
    words = ["data.size=700", "data.batch_size=100", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2"]
    words += ["trainer.max_steps=-1", "trainer.val_check_interval=3", *QUIET, "trainer.enable_progress_bar=false"]
    honest, trained = DenoisingObjective.forward, []

    def recorded(self, denoiser, x_0, *args, **kwargs):
        losses = honest(self, denoiser, x_0, *args, **kwargs)
        if denoiser.training:
            trained.append((x_0.sum().item(), losses.t.sum().item()))
        return losses

    monkeypatch.setattr(DenoisingObjective, "forward", recorded)

    def run(callbacks, ckpt_path=None):
        trained.clear()
        experiment = build(composed(*TINY, *words), Run(tmp_path / "run"))
        experiment.trainer.callbacks.extend(callbacks)
        experiment.trainer.fit(experiment.module, experiment.data, ckpt_path=ckpt_path, weights_only=True)
        return experiment.module.state_dict(), list(trained)

    state, batches = run([Saver(tmp_path)])
    assert len(batches) == len(set(batches)) == 14
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert {path.stem.rpartition("_")[0] for path in paths} == set(HOOKS)
    for path in paths:
        steps = torch.load(path, weights_only=True)["global_step"]
        known = 7 * (steps // 4) + 2 * (steps % 4)  # batches in the weights
        again, rest = run([], path)
        assert rest == batches[known:], path.name
        assert all(torch.equal(value, again[name]) for name, value in state.items()), path.name


def test_validation_loss_is_a_function_of_the_weights_alone(fitted):
    experiment = fitted()

    def validated() -> dict[str, float]:
        experiment.trainer.validate(experiment.module, experiment.data, verbose=False)
        return {name: float(value) for name, value in experiment.trainer.callback_metrics.items()}

    first = validated()
    torch.manual_seed(7)
    assert first == validated()
    quartiles = [value for name, value in first.items() if "loss_t" in name]
    assert len(quartiles) == 4
    assert sum(quartiles) / 4 == pytest.approx(first["val/loss"], rel=0.05)  # stratified: quartiles weigh alike


def test_the_last_step_is_validated_and_saved_whatever_the_interval(trained):
    folder = trained("trainer.max_steps=7", *UNDRAWN)
    with (folder / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert steps == [3, 6]  # Lightning counts from 0
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 7


def test_a_time_budget_stops_the_run_and_saves_it(trained):
    options = ["trainer.max_steps=100000", "trainer.max_time=00:00:00:01", *UNDRAWN]
    folder = trained(*options, "trainer.val_check_interval=100000")
    step = read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"]
    assert 0 < step < 100000


class Gradients(L.Callback):
    """The gradient of each step of the optimizer, before it is clipped."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(torch.cat([weight.grad.flatten() for weight in pl_module.denoiser.parameters()]))


def test_accumulated_gradients_equal_those_of_the_joined_batch(built, monkeypatch):
    """Of a loss without noise and with fixed times, which one batch of 300 items and three of 100 have alike."""

    def noiseless(self, denoiser, x_0, *args, **kwargs):
        level = denoiser.schedule.at(torch.full((len(x_0), 1), 0.5, dtype=torch.float64))
        return Losses(denoiser.output(x_0, level).square().mean(1), level.t.view(-1))

    monkeypatch.setattr(DenoisingObjective, "forward", noiseless)
    found = []
    for words in (["data.batch_size=300"], ["data.batch_size=100", "trainer.accumulate_grad_batches=3"]):
        experiment, gradients = built("data.size=300", "trainer.max_steps=2", *words), Gradients()
        experiment.trainer.callbacks.append(gradients)
        experiment.trainer.fit(experiment.module, experiment.data)
        assert experiment.trainer.global_step == len(gradients.seen) == 2
        found.append(gradients.seen)
    for joined, accumulated in zip(*found, strict=True):
        torch.testing.assert_close(accumulated, joined, rtol=1e-4, atol=1e-7)


def test_a_limit_that_is_not_positive_is_none(fitted):
    """As Lightning means it: the gradient is neither limited nor turned round."""
    states = [fitted(f"trainer.gradient_clip_val={value}").module.state_dict() for value in ("null", 0, -1)]
    for state in states[1:]:
        assert all(torch.equal(value, state[name]) for name, value in states[0].items())


def test_every_batch_of_a_step_has_its_own_noise_and_times_and_the_step_is_a_function_of_its_number(built, monkeypatch):
    """All batches hold the same single item, so that only the random numbers differ."""
    honest, drawn = DenoisingObjective.forward, []

    def recorded(self, denoiser, x_0, class_label=None, noise=torch.randn_like, offset=None):
        if denoiser.training:
            kept = []
            losses = honest(self, denoiser, x_0, class_label, lambda x: kept.append(noise(x)) or kept[0], offset)
            drawn.append((losses.t.tolist(), kept[0].tolist()))
            return losses
        return honest(self, denoiser, x_0, class_label, noise, offset)

    monkeypatch.setattr(DenoisingObjective, "forward", recorded)
    for seed in (0, 99):  # of the process, which must not matter
        batches = ["data.batch_size=5", "trainer.max_steps=3", "trainer.accumulate_grad_batches=4"]
        experiment = built(*batches, "schedule=vp")  # on a chain two batches may have a level in common
        torch.manual_seed(seed)
        experiment.trainer.fit(experiment.module, experiment.data)
    first, second = drawn[:12], drawn[12:]
    assert first == second
    assert all(a != b and c != d for k, (a, c) in enumerate(first) for b, d in first[:k])


@pytest.mark.parametrize(
    ("words", "steps", "epochs"),
    [
        (["trainer.max_steps=-1", "trainer.max_epochs=3"], 9, 3),
        (["trainer.max_steps=-1", "trainer.max_epochs=3", "trainer.accumulate_grad_batches=2"], 6, 3),
        (["trainer.max_steps=7", "trainer.max_epochs=3"], 7, 3),  # inside the third
        (["trainer.max_steps=100", "trainer.max_epochs=3"], 9, 3),
        (["trainer.max_steps=4", "trainer.limit_train_batches=2"], 4, 2),
        (["trainer.max_steps=-1", "trainer.max_epochs=2", "trainer.limit_train_batches=0.7"], 4, 2),
    ],
    ids=lambda value: " ".join(word.partition("_")[2] for word in value) if isinstance(value, list) else "",
)
def test_a_run_ends_by_its_steps_or_its_epochs_whichever_come_first(words, steps, epochs, built):
    """Three batches of 300 items, and a tail of 100 that is dropped; the plan knows the end before the first step."""
    experiment = built("data.size=1000", "data.batch_size=300", *words)
    assert total_steps(experiment.trainer, experiment.data) == steps
    experiment.trainer.fit(experiment.module, experiment.data)
    assert (experiment.trainer.global_step, experiment.trainer.current_epoch) == (steps, epochs)
    assert experiment.module.lr_schedulers().last_epoch == steps


def test_checkpoint_redraws_the_same_samples_without_data_or_config_files(trained, tmp_path):
    folder = trained(*UNDRAWN, "schedule.steps=25")
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    assert content["global_step"] == 4

    def draw(weights: str, batch: int) -> torch.Tensor:
        pretrained = Pretrained(path, weights)
        parts = []
        for start in range(0, 6, batch):
            noise = per_sample_noise(list(range(start, start + batch)))
            x = prior(pretrained.denoiser.schedule, torch.empty(batch, 2), noise)
            parts.append(pretrained.sampler.sample(pretrained.denoiser, x, noise=noise))
        return torch.cat(parts)

    assert torch.equal(draw("ema", 6), draw("ema", 6))
    torch.testing.assert_close(draw("ema", 6), draw("ema", 2), rtol=1e-5, atol=1e-6)
    assert not torch.equal(draw("ema", 6), draw("raw", 6))


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_non_finite_step_keeps_the_last_good_checkpoint(poison, trained, tmp_path, monkeypatch):
    """The loss, or its gradient alone, becomes nan in step 30: the weights before it are the ones that are saved."""
    honest = DenoisingObjective.__call__
    calls = iter(range(1000))

    def poisoned(self, *args, **kwargs):
        losses = honest(self, *args, **kwargs)
        if next(calls) == 30:
            # The root of 0 has value 0 and an infinite slope, which the chain rule turns into nan.
            value = losses.value * float("nan") if poison == "loss" else losses.value + (0 * losses.value).sqrt()
            losses = losses._replace(value=value)
        return losses

    monkeypatch.setattr(DenoisingObjective, "__call__", poisoned)
    match = r"became non-finite at step 30 .*Last good checkpoint: .*last.ckpt"
    with pytest.raises(TrainingError, match=match):
        trained("trainer.max_steps=50", "trainer.val_check_interval=50", *UNDRAWN)
    content = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    assert content["global_step"] == 30


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read as a checkpoint"),
        (lambda path: path.write_text("not a checkpoint"), "cannot be read as a checkpoint"),
        (lambda path: torch.save({"state_dict": {}}, path), "was not written by litdiffusion"),
        (lambda path: path.unlink(), "no checkpoint at"),
    ],
)
def test_bad_checkpoints_are_named(damage, message, tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"litdiffusion": {}, "state_dict": {"a": torch.zeros(10_000)}}, path)
    read_checkpoint(path)
    damage(path)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_checkpoint_of_another_model_is_refused_by_name(built):
    small, large = built("model.hidden=8").module, built("model.hidden=16").module
    content = {"state_dict": small.state_dict(), "litdiffusion": {}}
    with pytest.raises(UserError, match=r"holds another model: denoiser.net.layers.0.0.bias is \(8,\) in the file"):
        check_fits(content, large, Path("x.ckpt"))


def test_checkpoint_of_another_process_is_refused_by_key(built):
    epsilon, other = built().module, built("schedule=cosine", "seed=3").module
    content = {"state_dict": epsilon.state_dict(), "litdiffusion": epsilon.description}
    check_fits(content, epsilon, "x.ckpt")
    with pytest.raises(UserError, match=r"was trained with .*this run has"):
        check_fits(content, other, "x.ckpt")


def test_last_is_the_last_step_although_another_was_the_best(trained, monkeypatch):
    """A validation loss that only rises: best stays with the first validation, last moves on."""
    rising = iter(range(1, 100))
    monkeypatch.setattr(
        "litdiffusion.training.evaluation.quartile_means", lambda sums, name: {name: torch.tensor(float(next(rising)))}
    )
    folder = trained("trainer.max_steps=12", *UNDRAWN) / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best_step_000004.ckpt", "last.ckpt", "previous.ckpt"}
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == 12


def test_a_finished_run_is_not_run_again(trained):
    quick = UNDRAWN
    ckpt = trained(*quick) / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"has all of its 4 steps; to continue raise trainer\.max_steps"):
        trained(*quick, f"ckpt_path={ckpt}", folder="again")


def test_a_finished_run_can_be_made_longer(trained):
    """With a constant rate it ends as a run does that was as long from the beginning."""
    quick = [*UNDRAWN, "lr_schedule=constant"]
    short = trained(*quick, folder="short")
    trained(*quick, "trainer.max_steps=8", folder="short")
    whole = trained(*quick, "trainer.max_steps=8", folder="whole")
    first, second = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (short, whole))
    assert first["global_step"] == second["global_step"] == 8
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())


def test_learned_variances_train_and_sample(fitted):
    words = ["objective=hybrid", "sampler.variance=learned", "schedule.steps=25", "data=moons", "trainer.max_steps=60"]
    module = fitted(*words, "optimizer.lr=0.01", "ema_decay=0").module
    x = module.sampler.sample(module.ema.model, torch.zeros(4, 2))
    assert x.isfinite().all()
    assert module.denoiser.net.layers[-1].out_features == 4


def test_a_learned_variance_that_nobody_learns_is_refused(built):
    with pytest.raises(UserError, match="needs a net trained with objective=hybrid"):
        built("sampler.variance=learned")


def test_loss_aware_times_learn_and_are_in_the_checkpoint(trained):
    options = ["times=loss_aware", "times.bins=4", "times.warmup=1", "schedule.steps=100", "trainer.max_steps=60"]
    quiet = UNDRAWN
    whole = trained(*options, *quiet, folder="whole")
    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    moments = state["objective.times.second_moment"]
    assert state["objective.times.seen"].sum() == 60 * 512
    assert (moments > 0).all()
    assert moments[0] > moments[-1]  # the cleanest quarter is the hardest
