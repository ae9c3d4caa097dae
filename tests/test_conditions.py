"""Continuous conditions: data give them, nets are told them, training hides some, samples follow them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUIET, TINY, TINY_UNET, composed
from resuming import whole_and_resumed
from tables import write_csv
from test_cli import one_error
from torch.utils.data import DataLoader

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.data import DataModule, Digits, Spiral, TableData, as_batch, facts_of
from litdiffusion.data.batch import Batch
from litdiffusion.data.conditions import condition_scales
from litdiffusion.data.toys import spiral_angle
from litdiffusion.diffusion.denoisers import ClassifierFreeGuidance
from litdiffusion.errors import UserError
from litdiffusion.nets import MLP
from litdiffusion.nets.classes import ClassEmbedding
from litdiffusion.nets.conditions import ConditionEmbedding, condition_embedding
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export
from litdiffusion.training.conditions import condition_of, rows_drawn, with_dropout
from litdiffusion.training.late import LateChecks

SCALES = [
    {"name": "age", "mean": 5.0, "std": 2.0, "low": -3.0, "high": 13.0},
    {"name": "dose", "mean": -1.0, "std": 0.5, "low": -3.0, "high": 1.0},
]
SLOPES, NOISE = torch.tensor([0.7, -0.5]), 0.5
NAN = math.nan


class Line(DataModule):
    """``x = SLOPES · z + NOISE n`` in one dimension, with the conditions ``MEAN + STD z``; z and n standard normal."""

    shape, given_conditions = (1,), ("age", "dose")

    def __init__(self, *, size: int = 0, batch_size: int, val_size: int, seed: int) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        self.size = size

    def read(self) -> tuple[Batch, Batch]:
        generator = torch.Generator().manual_seed(0)

        def part(n: int) -> Batch:
            z, noise = torch.randn(n, 2, generator=generator), torch.randn(n, 1, generator=generator)
            return Batch((z @ SLOPES)[:, None] + NOISE * noise, None, values_of(z))

        return part(self.size), part(self.val_size)


LINE = ["data._target_=test_conditions.Line", "data.size=4000", "data.val_size=300", "~data.standardise"]
ANGLE = ["data.size=600", "data.val_size=100", "data.batch_size=100", "conditional=[angle]"]


def values_of(z):
    return torch.tensor([s["mean"] for s in SCALES]) + torch.tensor([s["std"] for s in SCALES]) * z


def exact(x_t, level, z):
    """E[x_0 | x_t, told] (n, 1) for z (n, 2), NaN where the model is not told: x_0 | told is normal."""
    told = ~z.isnan()
    mean = (SLOPES * z.nan_to_num(0)).sum(1, keepdim=True)
    variance = NOISE**2 + (SLOPES**2 * ~told).sum(1, keepdim=True)
    alpha, sigma = level.alpha.float(), level.sigma.float()
    return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small net that has learned `Line` in a few seconds."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("line")
    cfg = composed(
        *(word for word in TINY if not word.startswith("trainer.")),
        *["trainer.accelerator=cpu", "trainer.max_steps=900", "trainer.val_check_interval=null", "logger=none"],
        *["trainer.check_val_every_n_epoch=null", "trainer.log_every_n_steps=300"],
        *LINE,
        *["recipe=flow", "model.hidden=64", "model.layers=2", "optimizer.lr=5e-3", "data.batch_size=400"],
        *["ema_decay=0.99", "class_dropout=0.2"],
    )
    for name in cfg.callbacks:
        if name not in ("last", "best"):
            cfg.callbacks[name] = None
    train(cfg, Run(folder / "run"))
    return folder / "run" / "checkpoints" / "last.ckpt"


def test_a_linear_gaussian_is_learned_whatever_part_of_its_conditions_is_told(checkpoint):
    denoiser = Pretrained(checkpoint).denoiser
    torch.manual_seed(0)
    z = torch.randn(500, 2)
    for lost in ([], [0], [1], [0, 1]):
        known = z.index_fill(1, torch.tensor(lost, dtype=torch.long), NAN)
        x_0 = (z @ SLOPES)[:, None] + NOISE * torch.randn(500, 1)
        for sigma in (0.3, 1.0, 3.0):
            level = denoiser.schedule.at(
                denoiser.schedule.time(torch.tensor(-2 * math.log(sigma), dtype=torch.float64))
            )
            x_t = level.alpha.float() * x_0 + level.sigma.float() * torch.randn(500, 1)
            with torch.no_grad():
                found = denoiser(x_t, level, values_of(known)).x_0
            error = (found - exact(x_t, level, known)).square().mean().sqrt().item()
            # The deviation of x_0 is 1. A net that ignores what it is told has one of 0.80 at the last level.
            assert error < 0.15, (lost, sigma, error)


@torch.no_grad()
def test_weight_zero_is_the_net_that_is_told_nothing_and_one_the_net_that_is_told_all(checkpoint):
    denoiser = Pretrained(checkpoint).denoiser
    level, x, told = denoiser.schedule.at(0.6), torch.randn(50, 1), values_of(torch.randn(50, 2))
    free = denoiser(x, level)
    assert torch.equal(free.x_0, denoiser(x, level, torch.full((50, 2), NAN)).x_0)
    torch.testing.assert_close(
        ClassifierFreeGuidance(denoiser, 0.0)(x, level, told).x_0, free.x_0, rtol=1e-6, atol=1e-6
    )
    assert torch.equal(ClassifierFreeGuidance(denoiser, 1.0)(x, level, told).x_0, denoiser(x, level, told).x_0)


def test_samples_follow_the_values_that_are_asked_for(checkpoint, command, tmp_path):
    words = [f"ckpt={checkpoint}", "n=600", "steps=40"]
    status, out, err = command("scripts/sample.py", *words, "condition.age=[3,7]", f"out={tmp_path / 'drawn'}")
    assert status == 0, err
    assert "not told: dose" in out
    with np.load(tmp_path / "drawn" / "samples.npz") as file:
        x, told, names = file["samples"][:, 0], file["conditions"], file["condition_names"].tolist()
    assert names == ["age", "dose"]
    assert told[:2, 0].tolist() == [3, 7]
    assert np.isnan(told[:, 1]).all()
    for k, z in ((0, -1.0), (1, 1.0)):
        assert x[k::2].mean() == pytest.approx(0.7 * z, abs=0.2)
        assert x[k::2].std() == pytest.approx(0.5**0.5, abs=0.15)


def test_an_exported_model_draws_the_same(checkpoint, tmp_path):
    folder = export(checkpoint, tmp_path / "exported")
    asked = {"age": 7.0, "dose": [-1.0, 0.0]}
    before, after = (Pretrained(path).sample(6, condition=asked) for path in (checkpoint, folder))
    assert torch.equal(before, after)
    assert Pretrained(folder).condition_names == ["age", "dose"]


def test_held_out_items_are_likely_given_their_own_conditions_or_what_is_asked_for(checkpoint, command):
    """Of N(SLOPES · z, NOISE²). With the age's mean for all, the error of the mean adds (0.7 z)² / (2 NOISE²)."""

    def nats(*words: str) -> float:
        few = [f"ckpt={checkpoint}", "trust=test_conditions", "method=flow", "n=300", "rtol=1e-3", "atol=1e-3", *words]
        status, out, err = command("scripts/likelihood.py", *few)
        assert status == 0, err
        assert "-log p(x | age, dose) of 300 validation items" in out
        (row,) = [line for line in out.splitlines() if line.startswith("flow ")]
        return float(row.split()[-2])

    data = Line(size=4000, batch_size=8, val_size=300, seed=0)
    data.load()
    mean, std = values_of(torch.zeros(2)), values_of(torch.ones(2)) - values_of(torch.zeros(2))
    z, x = (data.val.conditions - mean) / std, data.val.data[:, 0]
    own, asked = (
        -torch.distributions.Normal(told @ SLOPES, NOISE).log_prob(x).mean().item()
        for told in (z, z * torch.tensor([0.0, 1.0]))
    )
    assert nats() == pytest.approx(own, abs=0.1)
    assert nats("condition.age=5") == pytest.approx(asked, abs=0.25)


def test_samples_of_an_evaluation_are_told_what_training_items_have_together(checkpoint):
    data = Line(size=4000, batch_size=8, val_size=300, seed=0)
    class_labels, told = Pretrained(checkpoint).told_like(data, 500, 3)
    assert class_labels is None
    rows = {tuple(row) for row in data.train.conditions.tolist()}
    assert all(tuple(row) in rows for row in told.tolist())
    assert len({tuple(row) for row in told.tolist()}) > 400


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("condition.agee=1", "no condition agee; did you mean age? (it was trained with age from"),
        ("condition.age=old", "condition.age must be a finite number"),
        ("condition.age=inf", "condition.age must be a finite number"),
        ("condition.age=[]", "condition.age must be a finite number"),
        ("condition.class=1", "the class is chosen by class_label=1"),
    ],
)
def test_bad_values_end_in_one_line(word, message, command, checkpoint):
    status, _, err = command("scripts/sample.py", f"ckpt={checkpoint}", word)
    assert message in one_error(status, err)


def test_a_value_outside_of_the_training_data_is_warned_of(checkpoint):
    with pytest.warns(UserWarning, match=r"condition\.age=40 is outside of the training data \(-"):
        Pretrained(checkpoint).told(2, condition={"age": [5, 40]})


def test_a_model_that_always_had_a_condition_must_be_told_it(checkpoint):
    pretrained = Pretrained(checkpoint)
    pretrained.config.class_dropout = 0.0
    with pytest.raises(UserError, match=r"must be told dose: give condition\.dose"):
        pretrained.told(2, condition={"age": 5})


# Nets and training


def test_nan_is_the_learned_vector_of_no_value_and_none_is_nan_everywhere():
    torch.manual_seed(0)
    embed, labels = ConditionEmbedding(3, 8, SCALES), torch.ones(4)
    told = torch.tensor([[2, 5, -1], [NAN, 5, -1], [2, NAN, -1], [NAN, NAN, NAN]])
    age, dose = (value.none for value in embed.values)
    none = embed.classes.table.weight[3] + age + dose
    torch.testing.assert_close(embed(told, labels)[3], none)
    assert torch.equal(embed(None, labels), embed(torch.full((4, 3), NAN), labels))
    torch.testing.assert_close(embed(told, labels)[2] - age, embed(told, labels)[0] - embed.values[0](told[:1, 1])[0])
    embed(told, labels).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in embed.parameters())


def test_a_class_in_a_column_has_the_vector_of_its_table_in_half_precision_too():
    embed = ConditionEmbedding(1000, 8, SCALES[:1]).to(torch.bfloat16)
    for k in (0, 257, 999):
        found = embed(torch.tensor([[k, NAN]]), torch.ones(1))
        assert found.dtype == torch.bfloat16
        assert torch.equal(found[0], embed.values[0].none + embed.classes.table.weight[k])


def test_the_vectors_of_values_begin_as_large_as_those_of_classes():
    torch.manual_seed(0)
    embed = ConditionEmbedding(0, 256, SCALES[:1])
    found = embed(values_of(torch.randn(2000, 2))[:, :1], torch.ones(2000))
    assert found.std().item() == pytest.approx(1, abs=0.1)


def test_one_call_makes_the_embedding_that_a_net_needs():
    assert condition_embedding(0, 8) is None
    assert isinstance(condition_embedding(3, 8, ()), ClassEmbedding)
    assert isinstance(condition_embedding(0, 8, SCALES), ConditionEmbedding)
    compiled = torch.compile(MLP((2,), (1.0, 9.0), 8, 1, conditions=SCALES), fullgraph=True, backend="eager")
    told = torch.tensor([[5.0, NAN], [1.0, 0.0]])
    assert compiled(torch.ones(2, 2), torch.ones(2), told).shape == (2, 2)


def test_a_share_of_items_loses_all_and_with_several_also_single_values():
    torch.manual_seed(0)
    one, two = (with_dropout(torch.zeros(40_000, columns), 0.2).isnan().double() for columns in (1, 2))
    assert one.mean().item() == pytest.approx(0.2, abs=0.01)
    assert two.mean(0).tolist() == pytest.approx([0.36, 0.36], abs=0.01)  # 1 - 0.8²
    assert two.prod(1).mean().item() == pytest.approx(0.2 + 0.8 * 0.04, abs=0.01)
    told = torch.zeros(3, 2)
    state = torch.get_rng_state()
    assert with_dropout(told, 0.0) is told
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_with_conditions_resumes_bit_for_bit(tmp_path):
    overrides = [*TINY, *QUIET, *ANGLE, "trainer.enable_progress_bar=false"]
    overrides += ["trainer.enable_checkpointing=true", "trainer.max_steps=9", "trainer.val_check_interval=3"]
    whole_and_resumed(overrides, 5, tmp_path)


def test_the_run_shows_samples_while_its_condition_is_swept(trained):
    few = ["callbacks.condition_sweep.points=20", "callbacks.condition_sweep.values=3", "logger=none", "metrics=none"]
    off = [f"callbacks.{name}=null" for name in ("field", "forward_process", "final_samples", "trajectory")]
    folder = trained(*ANGLE, *few, *off, "schedule=cosine", "schedule.steps=20")
    assert (folder / "pictures" / "condition_angle.png").stat().st_size > 1000


def test_class_and_grey_of_digits_reach_the_net_and_its_samples(built):
    experiment = built(*TINY_UNET, "conditional=[class,grey]")
    module, facts = experiment.module, experiment.facts
    assert module.description["config"]["conditional"] == ["class", "grey"]
    told = module.condition(facts.train)
    assert torch.equal(told[:, 0].long(), facts.train.class_label)
    grey = (facts.training_reference(50) + 1).flatten(1).mean(1) / 2
    torch.testing.assert_close(told[:50, 1], grey)
    batch = next(iter(experiment.data.train_dataloader()))
    torch.testing.assert_close(batch.conditions[:, 0], batch.data.float().flatten(1).mean(1) / 255)
    drawn = rows_drawn(told, 25, 0, 10)
    assert (drawn[:, 0] == torch.arange(25) % 10).all()


# Data


def test_the_angle_of_a_spirals_point_counts_whole_turns():
    u, v = torch.rand(2, 5000, generator=torch.Generator().manual_seed(1))
    rho, theta = 0.25 + 0.65 * u + 0.15 * v, 3 * math.pi * u
    x = torch.stack((rho * theta.cos(), rho * theta.sin()), 1)
    torch.testing.assert_close(spiral_angle(x), theta, atol=1e-4, rtol=0)
    data = Spiral(size=100, batch_size=10, val_size=10, seed=0)
    data.choose_conditions(["angle"])
    torch.testing.assert_close(data.train.conditions[:, 0], spiral_angle(data.in_data_units(data.train.data)))
    data.choose_conditions([])
    assert data.train.conditions is None


def table_of(tmp_path, **settings):
    rows = np.column_stack((np.arange(40.0), np.arange(40.0) ** 2, np.arange(40.0) / 7, np.arange(40) % 2))
    write_csv(tmp_path / "t.csv", rows, "x,y,age,kind")
    return TableData(path=tmp_path / "t.csv", batch_size=4, seed=0, **settings)


def test_columns_of_a_table_are_conditions_and_not_coordinates(tmp_path, capsys):
    data = table_of(tmp_path, conditions=["age"], label_column="kind")
    data.load()
    assert "coordinates x, y, classes in kind, conditions age" in capsys.readouterr().out
    assert data.shape == (2,)
    torch.testing.assert_close(data.train.conditions[:, 0], data.train.data[:, 0] / 7)
    other = table_of(tmp_path, conditions=["age"])
    assert data.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditions": ["agee"]}, "no column agee; did you mean age"),
        ({"conditions": ["x"], "columns": ["x", "y"]}, "name each column once"),
        ({"conditions": ["class"]}, "none called class"),
    ],
)
def test_bad_columns_of_conditions_are_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        table_of(tmp_path, **settings).load()


def test_what_a_table_names_is_told_without_further_words(built, tmp_path):
    table_of(tmp_path)
    words = ["data=table", f"data.path={tmp_path / 't.csv'}", "data.batch_size=8", "data.conditions=[age]"]
    assert built(*words).module.condition_names == ["age"]
    both = built(*words, "data.label_column=kind", "conditional=true").module
    assert (both.condition_names, both.num_classes) == (["age"], 2)
    assert built(*words, "conditional=false").module.conditions == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["conditional=[angel]"], "the data have no condition angel; did you mean angle"),
        (["conditional=true"], r"or name what can be computed of the items: conditional=\[angle\]"),
        (["conditional=[angle,angle]"], "a list with each condition once"),
        (["conditional=[class,angle]"], "needs labelled data"),
        (["conditional=[angle]", "trainer.precision=bf16-true"], "take trainer.precision=bf16-mixed"),
        (["conditional=[angle]", "~model.conditions"], "needs a net with conditions"),
    ],
)
def test_what_cannot_be_told_is_refused(words, message, built):
    with pytest.raises(UserError, match=message):
        built(*words)


def test_values_that_are_not_finite_or_constant_are_refused():
    data = Line(size=20, batch_size=4, val_size=4, seed=0)
    data.load()
    data._read[0].conditions[3, 1] = NAN
    with pytest.raises(UserError, match="the condition dose is nan for item 3"):
        data.choose_conditions(["age", "dose"])
    with pytest.raises(UserError, match="the condition age has the one value 2"):
        condition_scales(["age"], torch.full((9, 1), 2.0))


def test_the_stable_target_is_refused_with_conditions(fitted):
    with pytest.raises(UserError, match="no two items share a continuous condition"):
        fitted(*ANGLE, "objective=stable_target")


def test_loaders_of_others_return_conditions_as_a_third_part():
    items = [(torch.randn(6, 2), None, np.arange(6.0)[:, None] + k) for k in range(2)]
    assert as_batch(items[0]).conditions.shape == (6, 1)
    with pytest.warns(UserWarning, match="is read as items"):
        facts = facts_of(DataLoader(items, batch_size=None))
    assert (facts.condition_names, len(facts.train.conditions)) == (["0"], 12)
    assert facts.val_loader().dataset.part.class_label is None
    with pytest.raises(UserError, match=r"return \[0\], and a model takes all of them"):
        facts.choose_conditions(["age"])
    with pytest.raises(UserError, match=r"needs batches .* with conditions \(B, 2\), but this loader returns \(6, 1\)"):
        condition_of(as_batch(items[0]), 0, ["age", "dose"], LateChecks())


def test_images_that_are_decoded_when_needed_have_no_computed_condition():
    class Streamed(Digits):
        def read(self):
            train, val = super().read()
            return train._replace(data=Lazy(train.data)), val

    with pytest.raises(UserError, match=r"raise data\.memory_limit_gb"):
        Streamed(batch_size=8, seed=0).choose_conditions(["grey"])


class Lazy:
    """Images that are only there when they are asked for."""

    def __init__(self, data):
        self.data, self.shape = data, data.shape

    def __len__(self):
        return len(self.data)

    def index_select(self, dim, index):
        return self.data.index_select(dim, index)
