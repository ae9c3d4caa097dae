"""The health guard: what is not finite never reaches the weights, and what looks wrong is told once."""

import csv

import lightning as L
import pytest
import torch
from conftest import TINY, composed

from litdiffusion.build import Run, build
from litdiffusion.callbacks.pictures import warn_of_broken_samples
from litdiffusion.commands.training import train
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.objectives import Losses
from litdiffusion.diffusion.samplers.base import State
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.training.ema import EMA
from litdiffusion.training.guard import Health, diagnosis, sample_problem

QUIET = [
    "metrics=none",
    *(f"callbacks.{name}=null" for name in ("trajectory", "final_samples", "field", "forward_process")),
]


def test_a_step_that_is_not_finite_is_left_out_counted_and_logged(poisoned, trained, capfd):
    poisoned(3, 4)
    folder = trained(*QUIET, "trainer.max_steps=8", "trainer.val_check_interval=8", "skip_nonfinite=2")
    err = capfd.readouterr().err
    assert "warning: step 3 was skipped (1 so far): the largest gradient is that of net.layers" in err
    assert "warning: step 4 was skipped (2 so far)" in err
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [row["train/skipped_steps"] for row in rows] == ["", "1.0", "2.0", "2.0"]
    assert all(float(row["train/loss"]) < 10 for row in rows)  # nan is not averaged in


class Unmoved(L.Callback):
    """For each step whether it left the weights, and the optimizer's moments, as they were."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = self._state(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        (weights, moments), (now, then) = self.before, self._state(trainer, pl_module)
        same = bool(moments) and all(torch.equal(a, b) for a, b in zip(moments, then, strict=True))
        self.seen[batch_idx] = all(torch.equal(a, b) for a, b in zip(weights, now, strict=True)), same

    def _state(self, trainer, module):
        states = trainer.optimizers[0].state.values()
        moments = [value.clone() for state in states for value in state.values()]
        return [value.clone() for value in module.denoiser.state_dict().values()], moments


def test_a_skipped_step_leaves_weights_and_moments_as_they_were(poisoned, built):
    poisoned(2)
    experiment, unmoved = built("skip_nonfinite=1", "trainer.max_steps=3", "ema_decay=0"), Unmoved()
    experiment.trainer.callbacks.append(unmoved)
    experiment.trainer.fit(experiment.module, experiment.data)
    assert unmoved.seen == {0: (False, False), 1: (False, False), 2: (True, True)}
    assert experiment.trainer.global_step == 3


def test_one_more_than_allowed_stops_the_run_with_where_it_went_wrong(poisoned, tmp_path):
    poisoned(1, 3)
    cfg = composed(*TINY, *QUIET, "skip_nonfinite=1", "callbacks.progress_bar=null")
    with pytest.raises(TrainingError) as error:
        train(cfg, Run(tmp_path / "run"))
    text = str(error.value)
    assert "non-finite at step 3 after 1 skipped steps (the largest gradient is that of net.layers" in text
    assert "the worst loss nan in quartile t_" in text
    assert "skip_nonfinite=11" in text
    assert "\n" not in text


def test_skipping_can_be_switched_on_for_a_run_that_broke_off(poisoned, tmp_path, capfd):
    """Steps 0 to 2 are good; the second attempt begins at step 3, with the fifth call of the poisoned loss."""
    poisoned(3, 4)
    words = [*TINY, *QUIET, "callbacks.progress_bar=null"]
    with pytest.raises(TrainingError, match="at step 3 "):
        train(composed(*words), Run(tmp_path / "run"))
    train(composed(*words, "skip_nonfinite=1"), Run(tmp_path / "run"))
    captured = capfd.readouterr()
    assert "from step 3 (attempt 2)" in captured.out
    assert "step 3 was skipped" in captured.err


def test_the_number_of_skipped_steps_must_be_whole(tmp_path):
    with pytest.raises(UserError, match="skip_nonfinite must be a whole number of at least 0, got -1"):
        build(composed(*TINY, "skip_nonfinite=-1"), Run(tmp_path))


def test_a_diagnosis_names_the_parameter_and_the_item():
    losses = [
        Losses(torch.ones(2), torch.tensor([0.9, 0.3])),
        Losses(torch.tensor([1.0, 5.0]), torch.tensor([0.1, 0.6])),
    ]

    def where(batch: Losses, index: int) -> str:
        return f" at t = {batch.t[index]:.1f}"

    names, norms = ["small", "large"], torch.tensor([2.0, float("nan")])
    text = diagnosis(names, norms, losses, where)
    assert text == "the largest gradient is that of large, the worst loss 5 at t = 0.6"
    losses[0] = losses[0]._replace(value=torch.tensor([1.0, float("nan")]))
    assert "loss nan at t = 0.3" in diagnosis(names, norms, losses, where)


def test_each_warning_is_told_once(capfd):
    health = Health()
    for _ in range(3):
        health.warn_once("a", "first")
    health.warn_once("b", "second")
    assert capfd.readouterr().err == "warning: first\nwarning: second\n"


@pytest.mark.parametrize(
    ("groups", "step", "told"),
    [
        ([{"initial_lr": 0.0, "lr": 0.0}], 0, "optimizer.lr is 0"),
        ([{"lr": 0.0}], 0, "optimizer.lr is 0"),  # without a schedule
        ([{"initial_lr": 1e-3, "lr": 0.0}], 7, "the learning rate is 0 from step 7 on"),
        ([{"initial_lr": 1e-3, "lr": 0.0}], 10, ""),  # a cosine at its end
        ([{"initial_lr": 1e-3, "lr": 5e-4}], 7, ""),
        ([{"lr": 0.0}, {"lr": 1e-3}], 0, ""),  # layers that are kept as they are, and others
    ],
)
def test_a_learning_rate_of_zero(groups, step, told, capfd):
    Health().check_rate(groups, step, steps=10)
    err = capfd.readouterr().err
    assert told in err
    assert bool(told) == bool(err)


def test_broken_samples_are_told_from_good_ones():
    noise = torch.Generator().manual_seed(0)
    points = torch.randn(500, 2, generator=noise)
    assert sample_problem(points + 5, points, None) is None  # bad, but nothing that is certain
    assert sample_problem(torch.full((500, 2), 0.3), points, None)[0] == "constant"
    assert sample_problem(points / points.std(0) * 0.011, points / points.std(0), None) is None
    assert sample_problem(torch.where(points > 2, float("inf"), points), points, None)[0] == "infinite"
    images = (torch.rand(50, 1, 8, 8, generator=noise) * 2 - 1).sign()
    images[:, :, :, :2] = 0  # a quarter of the pixels grey: the data's share at the ends is 3/4
    assert sample_problem(images, images, (-1, 1)) is None
    assert sample_problem(images.sign() + (images == 0), images, (-1, 1))[0] == "saturated"
    # Halfway from 3/4 to 1 is 7/8: at exactly that nothing is told.
    images_half = images.clone()
    images_half[:, :, :, :1] = 1
    assert sample_problem(images_half, images, (-1, 1)) is None


def test_the_share_of_the_random_start_is_that_of_the_average():
    """The average of a start of 1 and weights of 0 is the share itself."""
    model = torch.nn.Linear(1, 1)
    ema = EMA(model, 0.5)
    for weight in [*ema.model.parameters()]:
        weight.data.fill_(1.0)
    for weight in model.parameters():
        weight.data.zero_()
    for step in range(7):
        assert ema.random_share(step) == pytest.approx(ema.model.weight.item(), rel=1e-5)
        ema.update(model, step)
    assert EMA(model, 0.999).random_share(3) == pytest.approx(1 / 220)


def broken_end():
    """Samples that are all the same, where a walk ended at clean data."""
    return State(torch.zeros(100, 2), Level(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1)))


def test_a_run_tells_of_its_samples_once(fitted, capfd):
    experiment = fitted("trainer.max_steps=2", "trainer.val_check_interval=2")
    capfd.readouterr()
    for _ in range(2):
        warn_of_broken_samples(experiment.module, broken_end(), "ema", experiment.facts)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("warning: all samples are the same")
    assert lines[1].startswith("warning: 2 % of the averaged weights are still random initial values")  # 1/10 * 2/11
    assert len(lines) == 2


@pytest.mark.parametrize("length", [["trainer.max_steps=9"], ["trainer.max_steps=-1", "trainer.max_epochs=9"]])
def test_a_run_tells_of_its_samples_from_a_quarter_of_its_length_on(length, built, capfd):
    """Of nine steps, or nine epochs of one step each: at the third."""
    experiment, told = built(*length, "data.size=600", "data.batch_size=600"), {}

    class Watching(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            warn_of_broken_samples(pl_module, broken_end(), "raw", experiment.facts)
            told[trainer.global_step] = "all samples are the same" in capfd.readouterr().err

    experiment.trainer.callbacks.append(Watching())
    experiment.trainer.fit(experiment.module, experiment.data)
    assert told == {step: step == 3 for step in range(1, 10)}
