"""The health guard: what is not finite never reaches the weights, and what looks wrong is told once."""

import csv

import pytest
import torch
from conftest import TINY, composed

from litdiffusion.build import Run, build
from litdiffusion.callbacks.drawing import watch
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.modules.ema import EMA
from litdiffusion.modules.health import Health, diagnosis, odd_samples
from litdiffusion.objectives import DenoisingObjective, Losses
from litdiffusion.samplers.base import State
from litdiffusion.schedules import linear
from litdiffusion.training import train
from litdiffusion.types import Level

QUIET = [
    "metrics=none",
    *(f"callbacks.{name}=null" for name in ("trajectory", "final_samples", "field", "forward_process")),
]


@pytest.fixture
def poisoned(monkeypatch):
    """Makes the loss of these steps nan; returns what they were called with."""

    def at(*steps: int) -> None:
        honest, calls = DenoisingObjective.__call__, iter(range(10**6))

        def bad(self, denoiser, x_0, *args, **kwargs):
            losses = honest(self, denoiser, x_0, *args, **kwargs)
            return losses._replace(error=losses.error * float("nan")) if next(calls) in steps else losses

        monkeypatch.setattr(DenoisingObjective, "__call__", bad)

    return at


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


def test_a_skipped_step_leaves_weights_and_moments_as_they_were(poisoned, built):
    poisoned(2)
    experiment = built("skip_nonfinite=1", "trainer.max_steps=3", "inner_steps=1", "ema_decay=0")
    module, seen = experiment.module, {}
    honest = module._step

    def step(batches):
        before = {name: value.clone() for name, value in module.denoiser.state_dict().items()}
        moments = [{k: v.clone() for k, v in s.items()} for s in module.optimizers().optimizer.state.values()]
        number = module.global_step
        honest(batches)
        after = list(module.optimizers().optimizer.state.values())
        seen[number] = (
            all(torch.equal(value, before[name]) for name, value in module.denoiser.state_dict().items()),
            bool(moments) and all(torch.equal(a[k], b[k]) for a, b in zip(moments, after, strict=True) for k in a),
        )

    module._step = step
    experiment.trainer.fit(module, experiment.data)
    assert seen == {0: (False, False), 1: (False, False), 2: (True, True)}
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


def test_a_diagnosis_names_the_parameter_and_the_quartile():
    small, large = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    small.grad, large.grad = torch.ones(2), torch.tensor([float("nan"), 0.0])
    one = torch.ones(2)
    losses = [
        Losses(one, one, torch.tensor([0.9, 0.3])),
        Losses(torch.tensor([1.0, 5.0]), one, torch.tensor([0.1, 0.6])),
    ]
    text = diagnosis([("small", small), ("large", large)], losses, linear(steps=100))
    assert text == "the largest gradient is that of large, the worst loss 5 in quartile t_50_75"
    losses[0] = losses[0]._replace(error=torch.tensor([1.0, float("nan")]))
    assert "loss nan in quartile t_25_50" in diagnosis([("large", large)], losses, linear(steps=100))


def test_each_warning_is_told_once(capfd):
    health = Health()
    for _ in range(3):
        health.tell("a", "first")
    health.tell("b", "second")
    assert capfd.readouterr().err == "warning: first\nwarning: second\n"


@pytest.mark.parametrize(
    ("rates", "factor", "step", "told"),
    [
        ([0.0], 1.0, 0, "optimizer.lr is 0"),
        ([1e-3], 0.0, 7, "the learning rate is 0 from step 7 on"),
        ([1e-3], 0.0, 10, ""),  # a cosine at its end
        ([1e-3], 0.5, 7, ""),
    ],
)
def test_a_learning_rate_of_zero(rates, factor, step, told, capfd):
    Health().check_rate(rates, factor, step, steps=10)
    err = capfd.readouterr().err
    assert told in err
    assert bool(told) == bool(err)


def test_odd_samples_are_told_from_good_ones():
    noise = torch.Generator().manual_seed(0)
    points = torch.randn(500, 2, generator=noise)
    assert odd_samples(points + 5, points, None) is None  # bad, but nothing that is certain
    assert odd_samples(torch.full((500, 2), 0.3), points, None)[0] == "constant"
    assert odd_samples(points / points.std(0) * 0.011, points / points.std(0), None) is None
    assert odd_samples(torch.where(points > 2, float("inf"), points), points, None)[0] == "infinite"
    images = (torch.rand(50, 1, 8, 8, generator=noise) * 2 - 1).sign()
    images[:, :, :, :2] = 0  # a quarter of the pixels grey: the data's share at the ends is 3/4
    assert odd_samples(images, images, (-1, 1)) is None
    assert odd_samples(images.sign() + (images == 0), images, (-1, 1))[0] == "saturated"
    # Halfway from 3/4 to 1 is 7/8: at exactly that nothing is told.
    images_half = images.clone()
    images_half[:, :, :, :1] = 1
    assert odd_samples(images_half, images, (-1, 1)) is None


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


def test_a_run_tells_of_its_samples_once_and_not_too_early(fitted, capfd):
    module = fitted("trainer.max_steps=2", "trainer.val_check_interval=2").module
    capfd.readouterr()
    clean = Level(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1))
    end = State(torch.zeros(100, 2), clean)
    watch(module, end, "ema")
    watch(module, end, "ema")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("warning: all samples are the same")
    assert lines[1].startswith("warning: 2 % of the averaged weights are still the random start")  # 1/10 * 2/11
    assert len(lines) == 2
    fresh = fitted("trainer.max_steps=2", "trainer.val_check_interval=2").module
    fresh.trainer.fit_loop.epoch_loop.max_steps = 9
    watch(fresh, end, "raw")
    assert capfd.readouterr().err == ""
