"""Data far from mean 0 and deviation 1: trained on standardised, and everything that comes back in their own units."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from conftest import BARE_RUN, TINY, TINY_UNET, UNMEASURED, composed
from omegaconf import DictConfig, OmegaConf
from tables import MEAN, STD, points, write_csv

from litdiffusion.build import Run, build
from litdiffusion.codecs import Standardise
from litdiffusion.commands.training import train
from litdiffusion.config.derived import look_up
from litdiffusion.data import DataModule, Mixture, scale_of
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import ClippedDenoiser
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export
from litdiffusion.pretrained.inpainting import inpaint_to_files
from litdiffusion.reports.likelihood import likelihood_to_files
from litdiffusion.runs.record import read_record
from litdiffusion.training.checkpoints import read_checkpoint

SMALL = [
    *("data=table", "schedule.steps=40", "data.batch_size=64", "model.hidden=32", "callbacks.progress_bar=null"),
    *("callbacks.final_samples.points=300", "callbacks.trajectory.points=50", "metrics.distances=[wasserstein]"),
]
LOG_UNITS = sum(map(math.log, STD))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the codec ----


def test_both_directions_in_closed_form_and_in_half_precision():
    codec, z = Standardise(MEAN, STD), normal(500, 2)
    x = codec.decode(z)
    torch.testing.assert_close(x, torch.tensor(MEAN) + torch.tensor(STD) * z)
    torch.testing.assert_close(codec.encode(x), z, rtol=0, atol=1e-5)
    assert codec.to(torch.bfloat16).encode(x).sub(z).abs().max() < 1e-5  # its constants are not rounded
    assert codec.encode(x.double()).dtype == torch.float64
    assert codec.log_units(x) == pytest.approx(LOG_UNITS)
    torch.testing.assert_close(codec.units(z), torch.tensor(STD).expand(500, 2))
    assert Standardise([2.0], [4.0]).log_units(x) == pytest.approx(2 * math.log(4))  # one pair for all coordinates
    images = Standardise([1.0, 2.0, 3.0], [2.0, 2.0, 4.0])
    assert images.encode(torch.full((1, 3, 2, 2), 5.0)).mean((0, 2, 3)).tolist() == [2.0, 1.5, 0.5]
    assert images.log_units(torch.zeros(4, 3, 2, 2)) == pytest.approx(4 * math.log(16))


def test_the_law_and_the_range_of_standardised_data():
    codec = Standardise(MEAN, STD)
    law = Mixture(torch.tensor([0.2, 0.8]), torch.tensor([[70.0, -50.0], [130.0, -45.0]]), torch.tensor([3.0, 1.0]))
    z = normal(50, 2)
    torch.testing.assert_close(
        codec.latent_law(law).log_density(z), law.log_density(codec.decode(z)) + LOG_UNITS, rtol=1e-4, atol=1e-4
    )
    low, high = codec.latent_range((-60.0, 200.0), (2,))
    torch.testing.assert_close(codec.decode(low), torch.full((1, 2), -60.0))
    torch.testing.assert_close(codec.decode(high), torch.full((1, 2), 200.0))
    assert Standardise([0.0], [1.0], always=False).latent_range((-1.0, 1.0), (1,)) == (-1.0, 1.0)
    assert codec.latent_range(None, (2,)) is None


FAR = {
    "far from 0": ([1.1, 0.0], [1.0, 1.0], True),
    "wide": ([0.0, 0.0], [1.0, 3.1], True),
    "narrow": ([0.0, 0.0], [0.29, 1.0], True),
    "a constant other than 0": ([5.0], [0.0], True),
    "unit": ([0.0, 0.0], [1.0, 1.0], False),
    "within the bounds": ([0.9, -0.2], [1.0, 0.3], False),
    "a constant 0": ([0.0], [0.0], False),
}


@pytest.mark.parametrize(("mean", "std", "far"), FAR.values(), ids=FAR)
def test_auto_standardises_vectors_that_are_far_and_nothing_else(mean, std, far):
    x = normal(10, len(mean))
    auto = Standardise(mean, std, always=False)
    assert auto.standardises(1) is far
    assert (auto.encode(x) is x) is not far
    assert (auto.decode(x) is x) is not far
    image = x[..., None, None]
    assert auto.encode(image) is image
    assert Standardise(mean, std).standardises(1)
    assert Standardise(mean, std).standardises(3)


def test_constants_that_cannot_be_used_are_refused_in_one_line():
    for mean, std in (([0.0], [1.0, 2.0]), ([float("nan")], [1.0]), ([0.0], [-1.0])):
        with pytest.raises(UserError, match=r"codec\.mean"):
            Standardise(mean, std)
    with pytest.raises(UserError, match="has 2 values, but items have 3 coordinates"):
        Standardise(MEAN, STD).encode(torch.zeros(1, 3))


def test_the_constants_do_not_depend_on_the_order_of_a_sum():
    x = torch.from_numpy(points(3000))
    scales = [scale_of(x[torch.randperm(3000, generator=torch.Generator().manual_seed(i))]).rounded() for i in range(9)]
    assert len({(tuple(s.mean.tolist()), tuple(s.std.tolist())) for s in scales}) == 1
    assert scales[0].mean.tolist() == pytest.approx(MEAN, abs=3e-4)
    assert scales[0].std.tolist() == pytest.approx(STD, rel=1e-5)
    whole = scale_of(x.flatten()[:, None])
    torch.testing.assert_close(torch.stack(scale_of(x).pooled()), torch.stack(whole))
    assert scale_of(torch.full((9, 2), 7.25)).rounded().mean.tolist() == [7.25, 7.25]


# ---- runs: one on the data, and its twin on data that were standardised by hand ----


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Folders of two runs: on the points, and on the same points standardised by hand, with codec=identity."""
    folder = tmp_path_factory.mktemp("twins")
    torch.set_num_threads(1)
    settings = [*TINY, *SMALL, "trainer.max_steps=60", "trainer.val_check_interval=30", "optimizer.lr=3e-3"]
    settings += ["callbacks.live_quality.samples=200", "callbacks.live_likelihood.max_share=null"]
    settings += ["callbacks.live_quality.max_share=null", "callbacks.trajectory=null", "callbacks.field=null"]
    settings += ["callbacks.forward_process=null"]

    def run(name, path, *more):
        train(composed(*settings, f"data.path={path}", *more), Run(folder / name, name))
        return Pretrained(folder / name / "checkpoints" / "last.ckpt")

    own = run("own", write_csv(folder / "own.csv", points()))
    by_hand = own.codec.encode(torch.from_numpy(points()).float()).double().numpy()
    return folder, own, run("twin", write_csv(folder / "twin.csv", by_hand), "codec=identity")


def logged(folder, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_the_run_trains_as_its_twin_does_and_its_samples_are_in_the_units_of_the_data(twins):
    folder, own, twin = twins
    assert own.codec.mean == pytest.approx(MEAN, abs=3)
    assert own.codec.std == pytest.approx(STD, rel=0.1)
    assert logged(folder / "own", "val/loss") == logged(folder / "twin", "val/loss")
    x, z = own.sample(200), twin.sample(200)
    assert torch.equal(x, own.codec.decode(z))
    torch.testing.assert_close(
        x.mean(0), torch.tensor(own.codec.mean).float() + torch.tensor(own.codec.std) * z.mean(0)
    )


def test_metrics_and_likelihoods_are_in_the_units_of_the_data(twins):
    folder, own, _ = twins
    shift = own.codec.log_units(torch.zeros(1, 2))
    ours, theirs = (logged(folder / name, "likelihood/nats") for name in ("own", "twin"))
    assert len(ours) == len(theirs) > 0
    assert ours == pytest.approx([value + shift for value in theirs], abs=1e-4)
    ratios = [a / b for a, b in zip(*(logged(folder / n, "samples/wasserstein") for n in ("own", "twin")), strict=True)]
    low, high = sorted(own.codec.std)
    assert all(low < ratio < high for ratio in ratios)


def test_samples_of_data_far_away_have_their_mean_and_deviation_and_likelihood(tmp_path, capsys):
    x = np.random.default_rng(1).normal(size=(3000, 1)) * 30 + 100
    cfg = composed(
        *BARE_RUN, "data=table", "recipe=edm", "model.hidden=32", f"data.path={write_csv(tmp_path / 't.csv', x, 'x')}",
        "trainer.max_steps=400", "trainer.val_check_interval=400", "optimizer.lr=5e-3", "ema_decay=0.98",
        "metrics=none",
    )  # fmt: skip
    train(cfg, Run(tmp_path / "run"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    samples = Pretrained(path).sample(2000)
    assert samples.mean().item() == pytest.approx(100, abs=3)
    assert samples.std().item() == pytest.approx(30, rel=0.07)
    settings = [f"ckpt={path}", f"data_path={tmp_path / 't.csv'}", "n=300", "method=flow", f"out={tmp_path}/nats"]
    likelihood_to_files(composed(*settings, config_name="likelihood"))
    assert "a density of the data in their own units" in capsys.readouterr().out
    with (tmp_path / "nats" / "likelihood.csv").open() as file:
        nats = {row["term"]: float(row["nats"]) for row in csv.DictReader(file)}
    entropy = 0.5 * math.log(2 * math.pi * math.e * 30**2)
    assert nats["units of the data"] == pytest.approx(math.log(30), abs=0.05)
    assert list(nats.values())[-1] == pytest.approx(entropy, abs=0.15)


def test_a_resumed_run_its_checkpoint_and_its_export_draw_equal_samples(tmp_path):
    path = write_csv(tmp_path / "t.csv", points(100))
    settings = [*TINY, *SMALL, *UNMEASURED, f"data.path={path}", "callbacks.final_samples=null", "callbacks.field=null"]
    settings += ["callbacks.trajectory=null", "callbacks.forward_process=null", "data.batch_size=16"]

    def run(name: str, steps: int) -> None:
        train(composed(*settings, f"trainer.max_steps={steps}", "lr_schedule=constant"), Run(tmp_path / name))

    run("whole", 8)
    run("parts", 4)
    run("parts", 8)
    files = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("whole", "parts")]
    samples = [Pretrained(file).sample(50) for file in files]
    samples.append(Pretrained(export(files[1], tmp_path / "export")).sample(50))
    assert torch.equal(samples[0], samples[1])
    assert torch.equal(samples[0], samples[2])
    config = json.loads((tmp_path / "export" / "config.json").read_text())["config"]
    assert config["codec"]["mean"] == Pretrained(files[0]).codec.mean


def own(table, *more: str) -> DictConfig:
    """The config of a short run on a table."""
    settings = [*BARE_RUN, *SMALL, "data.batch_size=16", "lr_schedule=constant", f"data.path={table}"]
    settings = [word for word in settings if ".points=" not in word and word != "schedule.steps=40"]
    return composed(*settings, *more)


@pytest.mark.parametrize("recipe", ["edm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpm", "ve"))])
def test_a_run_from_a_checkpoint_measures_its_own_data_and_says_so(recipe, tmp_path, capfd):
    """In other units the weights see the same standardised items, so both runs go on bit for bit alike."""
    tables = [write_csv(tmp_path / f"{k}.csv", x) for k, x in enumerate((points(100), 8 * points(100)))]
    words = [f"recipe={recipe}"]
    train(own(tables[0], *words), Run(tmp_path / "first"))
    start = [f"ckpt_path={tmp_path}/first/checkpoints/last.ckpt", "trainer.max_steps=6"]
    capfd.readouterr()
    states = []
    for k, table in enumerate(tables):
        train(own(table, *words, *start), Run(tmp_path / f"next{k}"))
        out, err = capfd.readouterr()
        lines = [line for line in out.splitlines() if line.startswith("measured on this run's data, unlike")]
        assert len(lines) == k
        assert "dirpath" not in err
        assert "Be aware" not in err
        states.append(read_checkpoint(tmp_path / f"next{k}" / "checkpoints" / "last.ckpt"))
    assert re.search(r"first/checkpoints/last.ckpt: codec.mean: \[.*\] -> \[.*\], codec.std: \[", lines[0])
    codecs = [
        Standardise(*(state["litdiffusion"]["config"]["codec"][key] for key in ("mean", "std"))) for state in states
    ]
    assert codecs[1].mean == pytest.approx([8 * value for value in codecs[0].mean], rel=1e-5)
    for name, weight in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], weight, rtol=1e-3, atol=1e-5)
    samples = [Pretrained(tmp_path / f"next{k}" / "checkpoints" / "last.ckpt").sample(20) for k in range(2)]
    torch.testing.assert_close(samples[1], 8 * samples[0], rtol=1e-2, atol=0.1)


def test_constants_that_are_typed_are_kept_and_typed_differences_refused(tmp_path, capfd):
    first, second = write_csv(tmp_path / "a.csv", points(100)), write_csv(tmp_path / "b.csv", points(100) + 20)
    train(own(first), Run(tmp_path / "a"))
    checkpoint = tmp_path / "a" / "checkpoints" / "last.ckpt"
    more = [f"ckpt_path={checkpoint}", "trainer.max_steps=6"]
    codec = Pretrained(checkpoint).codec
    typed = [f"codec.mean={codec.mean}", f"codec.std={codec.std}"]
    train(own(second, *more, *typed), Run(tmp_path / "b"))
    assert Pretrained(tmp_path / "b" / "checkpoints" / "last.ckpt").codec.mean == codec.mean
    assert "measured on this run's data" not in capfd.readouterr().out
    with pytest.raises(
        UserError, match=r"was trained with codec\.mean=\[.*this run has codec.mean=\[1, 2\]; start with"
    ):
        train(own(second, *more, "codec.mean=[1,2]", "codec.std=[1,1]"), Run(tmp_path / "c"))
    start = f"ckpt_path={tmp_path}/b/checkpoints/last.ckpt"
    with pytest.raises(UserError, match=r"was trained with codec\.mean=\[.*start with"):  # typed then, measured now
        train(own(second, start, "trainer.max_steps=8"), Run(tmp_path / "d"))
    with pytest.raises(
        UserError, match=r"was trained with model\.hidden=32, this run has model\.hidden=16; start with"
    ):
        train(own(second, *more, "model.hidden=16"), Run(tmp_path / "e"))


@pytest.mark.parametrize(
    ("rows", "how"),
    [
        *((rows, how) for rows, how in zip((100, 40, 20, 400), ("max_steps=12", "max_epochs=3") * 2, strict=True)),
        *(pytest.param(rows, how, marks=pytest.mark.slow)
          for rows, how in zip((100, 40, 20, 400), ("max_epochs=3", "max_steps=12") * 2, strict=True)),
    ],
)  # fmt: skip
def test_a_run_from_the_middle_of_an_epoch_goes_on_with_a_table_of_another_length(rows, how, tmp_path):
    train(own(write_csv(tmp_path / "a.csv", points(100))), Run(tmp_path / "a"))  # 4 of 5 batches
    other = write_csv(tmp_path / "b.csv", points(rows) * 3)
    start = f"ckpt_path={tmp_path}/a/checkpoints/last.ckpt"
    length = [f"trainer.{how}", *(["trainer.max_steps=-1"] if "epochs" in how else []), "trainer.val_check_interval=1"]
    train(own(other, start, *length, "data.batch_size=18", "seed=5"), Run(tmp_path / "b"))
    epoch = rows * 9 // 10 // 18
    rest = epoch - 4 if epoch >= 4 else epoch  # an epoch that is shorter than what was done of it begins again
    assert read_record(tmp_path / "b").step == (12 if "steps" in how else 4 + rest + 2 * epoch)


def test_the_average_takes_the_decay_of_the_new_run(tmp_path):
    table = write_csv(tmp_path / "a.csv", points(100))
    train(own(table), Run(tmp_path / "a"))
    start = [f"ckpt_path={tmp_path}/a/checkpoints/last.ckpt", "trainer.max_steps=6", "ema_decay=0"]
    train(own(table, *start), Run(tmp_path / "b"))
    weights = read_checkpoint(tmp_path / "b" / "checkpoints" / "last.ckpt")["state_dict"]
    averages = {name.removeprefix("ema.model."): value for name, value in weights.items() if name.startswith("ema.")}
    assert averages
    for name, value in averages.items():
        assert torch.equal(value, weights[f"denoiser.{name}"]), name


def test_inpainting_fixes_a_coordinate_in_the_units_of_the_data(twins, tmp_path):
    folder, own, _ = twins
    known = torch.tensor([[90.1, MEAN[1]], [120.7, MEAN[1]]])
    drawn = {}
    for name, x in (("own", known), ("twin", own.codec.encode(known))):
        settings = [f"ckpt={folder}/{name}/checkpoints/last.ckpt", f"data_path={folder}/{name}.csv", "samples=50"]
        settings += [f"x={x[:, 0].tolist()}", "steps=20", "resample=1", f"out={tmp_path}/{name}"]
        out = inpaint_to_files(composed(*settings, config_name="inpaint"))
        drawn[name] = torch.from_numpy(np.load(out / "inpainting.npz")["samples"])
    assert (drawn["own"][..., 0] == known[:, :1]).all()
    assert torch.equal(drawn["own"][..., 1], own.codec.decode(drawn["twin"].flatten(0, 1)).view(2, 50, 2)[..., 1])


class FarMixture(DataModule):
    """Two Gaussians far from the origin, in their own units."""

    shape = (2,)
    mixture = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[80.0, -50.0], [130.0, -45.0]]), torch.tensor([9.0, 4.0]))

    def __init__(self, *, batch_size: int, val_size: int, seed: int):
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)

    def read(self):
        draw = [self.mixture.sample(n, torch.Generator().manual_seed(n)) for n in (3000, self.val_size)]
        return tuple(map(Batch, draw))


def test_the_exact_field_is_the_gradient_of_the_log_density_in_the_units_of_the_data(tmp_path):
    words = [
        "data._target_=test_standardise.FarMixture",
        "~data.size",
        "~data.standardise",
        "trusted=[test_standardise]",
        "metrics=none",
    ]
    experiment = build(composed(*TINY, "logger=none", *words), Run(tmp_path))
    experiment.module._trainer = experiment.trainer
    (field,) = (c for c in experiment.trainer.callbacks if type(c).__name__ == "Field")
    field.facts, field.times = experiment.facts, [0.2, 0.6]
    schedule, codec = experiment.module.denoiser.schedule, experiment.module.codec
    mean, std = torch.tensor(codec.mean).double(), torch.tensor(codec.std).double()
    assert mean.tolist() == pytest.approx([115, -46.5], abs=2)
    for panel, t in zip(field.panels(experiment.trainer, experiment.module), field.times, strict=True):
        level = schedule.snap(torch.tensor(t, dtype=torch.float64))
        alpha, sigma = level.alpha.item(), level.sigma.item()
        noised = Mixture(
            FarMixture.mixture.weights.double(),
            mean + alpha * (FarMixture.mixture.means - mean),
            ((alpha * FarMixture.mixture.std) ** 2 + (sigma * std) ** 2).sqrt(),
        )
        x = panel.points.double().requires_grad_()
        (gradient,) = torch.autograd.grad(noised.log_density(x).sum(), x)
        torch.testing.assert_close(panel.truth.double(), gradient, rtol=1e-3, atol=1e-4)
        assert panel.density.mean(0).tolist() == pytest.approx(mean.tolist(), abs=3)


# ---- where nothing is standardised ----


def test_a_warning_has_both_numbers_where_standardising_is_switched_off(tmp_path):
    path = write_csv(tmp_path / "t.csv", points(100))
    settings = [*TINY, *SMALL, f"data.path={path}", "data.batch_size=16"]
    with pytest.warns(UserWarning, match=r"deviation \d.* mean \d+.*codec=auto or standardise"):
        build(composed(*settings, "codec=identity"), Run(tmp_path / "a"))
    experiment = build(composed(*settings), Run(tmp_path / "b"))
    assert experiment.cfg.derived.sigma_data == pytest.approx(1, abs=1e-3)
    assert experiment.cfg.codec.mean == experiment.cfg.derived.data_mean


def test_near_data_and_images_are_left_alone_bit_for_bit():
    for words in (["data=spiral"], ["data=digits", "model=unet"]):
        cfg = composed(*words)
        codec = Standardise(look_up("data_mean", cfg), look_up("data_std", cfg), always=False)
        assert OmegaConf.to_container(cfg.codec, resolve=True)["mean"] == codec.mean
        x = normal(4, *look_up("shape", cfg))
        assert codec.encode(x) is x


def test_images_are_standardised_by_channel_if_asked_and_clipped_in_their_own_range(tmp_path):
    words = [
        *TINY,
        *TINY_UNET,
        "callbacks=none",
        "logger=none",
        "codec=standardise",
        "schedule.steps=50",
        "metrics=none",
    ]
    experiment = build(composed(*words, "schedule.steps=50"), Run(tmp_path))
    module = experiment.module
    z = module.codec.encode(experiment.facts.training_reference(1000))
    assert (z.mean().item(), z.std().item()) == (pytest.approx(0, abs=0.05), pytest.approx(1, abs=0.05))
    x = module.draw(4, seeded_noise(0))
    assert x.min().item() >= -1 - 1e-5
    assert x.max().item() <= 1 + 1e-5
    assert x.max().item() - x.min().item() > 1.9


def test_clipping_in_the_units_of_the_data():
    codec = Standardise([5.0], [10.0])

    class Far(torch.nn.Module):
        schedule = None

        def forward(self, x, level, class_label=None):
            return Batch(x, x)

    clipped = ClippedDenoiser(Far(), *codec.latent_range((0.0, 10.0), (1,)))
    assert clipped.low.item() == -0.5
    assert clipped.high.item() == 0.5
