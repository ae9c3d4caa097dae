"""Guidance: each kind against a closed form, and every yaml of conf/guide from a run's pictures to an evaluation."""

import csv
from functools import partial

import numpy as np
import pytest
import torch
from analytic import double
from conftest import BARE_RUN, CONF, TINY, TINY_UNET, UNMEASURED, composed
from mixtures import Mixture
from omegaconf import OmegaConf
from test_cli import one_error

from litdiffusion.build import Run, build
from litdiffusion.codecs import Identity, Standardise
from litdiffusion.commands.training import train
from litdiffusion.config.guide import Guide
from litdiffusion.diffusion.denoisers import (
    Autoguidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    GaussianMixtureDenoiser,
)
from litdiffusion.diffusion.gaussian import diffuse, score
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.samplers.base import Predict
from litdiffusion.diffusion.schedules import VE, LinearChain
from litdiffusion.errors import UserError
from litdiffusion.plots import Curve, guidance_picture
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export
from litdiffusion.training import DiffusionModule

SCHEDULE = LinearChain(100)
BOTH = Mixture([0.3, 0.7], [[-1.0, 0.5], [0.8, 0.3]], [0.3, 0.5])
CLASSES = [Mixture([1.0], [BOTH.means[k].tolist()], [BOTH.stds[k, 0]]) for k in range(2)]
LABELS = torch.tensor([0, 1] * 4)
every_time = pytest.mark.parametrize("t", [0.01, 0.3, 1.0])


class ByClass(torch.nn.Module):
    """The exact denoiser of a component for its class, of the mixture for none; counts its calls."""

    schedule, calls = SCHEDULE, 0

    def forward(self, x_t, level, class_label=None):
        self.calls += 1
        if class_label is None:
            return BOTH.denoiser(SCHEDULE)(x_t, level)
        parts = [law.denoiser(SCHEDULE)(x_t, level) for law in CLASSES]
        chosen = (class_label == 0)[:, None]
        return parts[0]._replace(**{k: torch.where(chosen, *(getattr(p, k) for p in parts)) for k in ("x_0", "eps")})


def some_x(n=8, d=2):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def true_score(law, x, level):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(law.log_density(x, level.alpha, level.sigma).sum(), x)[0]


@every_time
@pytest.mark.parametrize("weight", [0.0, 1.0, 0.5, 3.0])
def test_the_guided_score_of_a_mixture_is_the_combination_of_both_true_scores(t, weight):
    now, x_t = SCHEDULE.at(t), some_x()
    found = ClassifierFreeGuidance(ByClass(), weight)(x_t, now, LABELS)
    free = true_score(BOTH, x_t, now)
    bound = torch.where((LABELS == 0)[:, None], *(true_score(law, x_t, now) for law in CLASSES))
    torch.testing.assert_close(score(found.eps, now), free + weight * (bound - free), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(diffuse(found.x_0, found.eps, now), x_t, rtol=1e-12, atol=1e-12)
    if weight in (0, 1):
        assert torch.equal(found.x_0, ByClass()(x_t, now, LABELS if weight else None).x_0)


def linear(x_0):
    """Logits whose log-softmax is linear in x_0 up to a constant for the tests below: class 1 against a huge rest."""
    return torch.stack([torch.zeros_like(x_0[:, 0]) + 60, x_0 @ double([0.7, -1.3])], dim=1)


def kinds(interval=None):
    weaker = GaussianMixtureDenoiser(SCHEDULE, double([1.0]), double([[0.0, 0.0]]), double([[1.0]]))
    return {
        "classifier_free": partial(ClassifierFreeGuidance, interval=interval),
        "autoguidance": partial(Autoguidance, guide=weaker, interval=interval),
        "classifier": partial(ClassifierGuidance, classifier=linear, interval=interval),
    }


@pytest.mark.parametrize("kind", kinds())
def test_outside_its_interval_guidance_is_the_model_bit_for_bit(kind):
    levels = [SCHEDULE.at(t) for t in (0.05, 0.4, 0.95)]
    low, middle, high = (level.ratio.item() for level in levels)
    guided, x_t = kinds([middle * 0.9, middle * 1.1])[kind](ByClass(), 3.0), some_x()
    for level, inside in zip(levels, (False, True, False), strict=True):
        calls = guided.denoiser.calls
        found, plain = guided(x_t, level, LABELS), ByClass()(x_t, level, LABELS)
        assert torch.equal(found.x_0, plain.x_0) != inside
        assert torch.equal(found.eps, plain.eps) != inside
        assert guided.denoiser.calls - calls == 1 + (inside and kind == "classifier_free")
    # A batch of different levels: the same, item by item.
    mixed = Level(*(torch.stack(part)[:, None] for part in zip(*levels, strict=True)))
    found, plain = guided(x_t[:3], mixed, LABELS[:3]), ByClass()(x_t[:3], mixed, LABELS[:3])
    assert (found.x_0 != plain.x_0).any(1).tolist() == [False, True, False]
    one = guided(x_t[1:2], levels[1], LABELS[1:2])
    torch.testing.assert_close(found.x_0[1:2], one.x_0, rtol=1e-12, atol=1e-12)
    assert low < middle < high


@pytest.mark.parametrize("interval", [[1.0], [2.0, 1.0], [-1.0, 1.0], [1.0, 2.0, 3.0], [float("nan"), 1.0]])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(UserError, match=r"guide.interval must be two numbers 0 <= low < high"):
        ClassifierFreeGuidance(ByClass(), 2.0, interval)


def test_rescaling_restores_the_std_of_each_item():
    now, x_t = SCHEDULE.at(0.4), some_x()
    plain, guided, same, half, whole = (
        ClassifierFreeGuidance(ByClass(), weight, rescale=phi)(x_t, now, LABELS)
        for weight, phi in ((1, 0.0), (4, 0.0), (4, 0.0), (4, 0.5), (4, 1.0))
    )
    assert torch.equal(same.x_0, guided.x_0)
    std = [part.x_0.std(1) for part in (plain, guided, half, whole)]
    torch.testing.assert_close(std[3], std[0])
    torch.testing.assert_close(std[2], (std[0] + std[1]) / 2)
    assert not torch.allclose(std[1], std[0])
    torch.testing.assert_close(diffuse(whole.x_0, whole.eps, now), x_t, rtol=1e-12, atol=1e-12)
    with pytest.raises(UserError, match=r"guide.rescale must lie in \[0, 1\], got 2"):
        ClassifierFreeGuidance(ByClass(), 2.0, rescale=2)


@every_time
@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0, -2.0])
@pytest.mark.parametrize("class_label", [None, LABELS], ids=["no class", "classes"])
def test_a_guide_equal_to_the_model_changes_nothing(t, weight, class_label):
    now, x_t = SCHEDULE.at(t), some_x()
    found, plain = Autoguidance(ByClass(), weight, ByClass())(x_t, now, class_label), ByClass()(x_t, now, class_label)
    assert torch.equal(found.x_0, plain.x_0)
    assert torch.equal(found.eps, plain.eps)


@every_time
def test_autoguidance_by_a_wider_gaussian_has_the_score_of_both(t):
    now, x_t, weight = SCHEDULE.at(t), some_x(), 2.5
    wide, narrow = Mixture([1.0], [[0.2, 0.0]], [1.5]), CLASSES[0]
    found = Autoguidance(narrow.denoiser(SCHEDULE), weight, wide.denoiser(SCHEDULE))(x_t, now)
    expected = (1 - weight) * true_score(wide, x_t, now) + weight * true_score(narrow, x_t, now)
    torch.testing.assert_close(score(found.eps, now), expected, rtol=1e-9, atol=1e-9)


def test_a_guide_with_other_noise_levels_is_refused():
    for other in (LinearChain(50), VE(), LinearChain(100, beta_end=0.01)):
        with pytest.raises(UserError, match="was trained on other noise levels"):
            Autoguidance(ByClass(), 2.0, BOTH.denoiser(other))


@every_time
@pytest.mark.parametrize("weight", [0.0, 2.0, 5.0])
def test_a_log_linear_classifier_of_a_gaussian_is_exact_at_every_level(t, weight):
    """p(x) exp(a x)^(w - 1) of N(m, s²) is N(m + (w - 1) s² a, s²), and so is its noised version."""
    now, x_t, std = SCHEDULE.at(t), some_x(), 0.5
    mean = double([0.8, 0.3])
    shifted = mean + (weight - 1) * std**2 * double([0.7, -1.3])
    target = Mixture([1.0], [shifted.tolist()], [std])
    guided = ClassifierGuidance(CLASSES[1].denoiser(SCHEDULE), weight, linear)
    found = guided(x_t, now, torch.ones(8, dtype=torch.long))
    torch.testing.assert_close(score(found.eps, now), true_score(target, x_t, now), rtol=1e-9, atol=1e-9)


def test_an_exact_classifier_of_two_gaussians_gives_the_posterior_as_the_noise_vanishes():
    """score = score(x_t | class) + (w - 1) grad log p(class | x_t); the error falls with sigma²."""
    weight, x_0 = 3.0, some_x()

    def logits(x):
        return torch.stack([law.log_density(x) + w.log() for law, w in zip(CLASSES, BOTH.weights, strict=True)], 1)

    errors = []
    for ratio in (0.1, 0.05, 0.025):
        now = Level(*(double(value) for value in (0.5, 1.0, ratio)))
        found = ClassifierGuidance(ByClass(), weight, logits)(x_0, now, LABELS)
        bound = torch.where((LABELS == 0)[:, None], *(true_score(law, x_0, now) for law in CLASSES))
        expected = weight * bound - (weight - 1) * true_score(BOTH, x_0, now)
        errors.append((score(found.eps, now) - expected).abs().max().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02 * expected.abs().max()


def test_classifier_guidance_takes_gradients_in_inference_mode_and_where_no_signal_is_left():
    guided, plain = ClassifierGuidance(ByClass(), 3.0, linear), ByClass()
    outside = guided(some_x(), SCHEDULE.at(0.4), LABELS)
    with torch.inference_mode():
        inside = Predict(guided, LABELS + 0)(some_x(), SCHEDULE.at(0.4))
    assert torch.equal(inside.x_0, outside.x_0)
    assert not outside.x_0.requires_grad
    noise = Level(*(double(value) for value in (1.0, 0.0, 1.0)))
    assert torch.equal(guided(some_x(), noise, LABELS).x_0, plain(some_x(), noise, LABELS).x_0)


# Every yaml of conf/guide, from a run to an evaluation.

DIGITS = [*TINY_UNET, "schedule.steps=25", "metrics.reference=100", "+metrics.features.steps=40"]
RUN = [*TINY, *UNMEASURED, "callbacks.progress_bar=null", "callbacks.forward_process=null", "logger=none"]
RUN += ["callbacks.trajectory=null", "callbacks.final_samples.images=4", "callbacks.final_samples.steps=4"]
KINDS = sorted(path.stem for path in (CONF / "guide").glob("*.yaml"))


@pytest.fixture(scope="module")
def weaker(tmp_path_factory):
    """An earlier, smaller model; it is drawn unguided."""
    folder = tmp_path_factory.mktemp("weaker")
    train(composed(*BARE_RUN, *DIGITS, "model.channels=[4]", "optimizer.lr=0.05"), Run(folder))
    return folder / "checkpoints" / "last.ckpt"


def words(kind, weaker):
    own = {"autoguidance": [f"guide.ckpt={weaker}"], "classifier": ["+guide.features.steps=40"]}
    return [f"guide={kind}", *own.get(kind, [])]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "autoguidance")) for kind in KINDS]
)
def test_every_kind_draws_pictures_samples_and_reloads(kind, weaker, command, tmp_path):
    choice = words(kind, weaker)
    module = train_module(tmp_path / "run", *choice, "guidance=3")
    ckpt = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert (tmp_path / "run" / "pictures" / "samples.png").is_file()
    net = module.denoiser.state_dict().keys()
    assert {key.removeprefix("denoiser.") for key in module.state_dict() if key.startswith("denoiser.")} == set(net)
    assert all(key.startswith(("denoiser.", "ema.", "objective.")) for key in module.state_dict())
    folder, given = export(ckpt, tmp_path / "exported"), [] if kind == "classifier_free" else choice
    drawn = {}
    for name, path in (("own", ckpt), ("exported", folder)):
        options = [f"ckpt={path}", f"out={tmp_path / name}", "n=6", "device=cpu", *given]
        status, _, err = command("scripts/sample.py", *options)
        assert status == 0, err
        drawn[name] = np.load(tmp_path / name / "samples.npz")["samples"]
    assert np.array_equal(drawn["own"], drawn["exported"])
    assert not np.array_equal(drawn["own"], Pretrained(ckpt).sample(6, guidance=1.0, device="cpu").numpy())
    restored = DiffusionModule.load_from_checkpoint(ckpt)
    assert restored.state_dict().keys() == module.state_dict().keys()
    if kind == "autoguidance":
        with pytest.raises(UserError, match=r"guide=autoguidance needs a smaller or earlier model: guide.ckpt="):
            restored.sampling_denoiser(guidance=3.0)
    else:  # the run's own kind is found in the file, and its classifier in the cache
        made, before = (x.sampling_denoiser(guidance=3.0).denoiser for x in (restored, module))
        assert (type(made), made.weight) == (type(before), 3)


def train_module(folder, *overrides):
    """Trains as `train` does and returns the module."""
    experiment = build(composed(*RUN, *DIGITS, *overrides), Run(folder))
    experiment.trainer.fit(experiment.module, experiment.data)
    return experiment.module


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ckpt": "???"}, "guide=autoguidance needs a smaller or earlier model: guide.ckpt="),
        ({"ckpt": "nowhere.ckpt"}, "no checkpoint at nowhere.ckpt"),
        ({"weights": "best"}, "weights must be one of ema, raw, got 'best'"),
        ({"num_classes": 0}, "has the number of classes 10, this model 0; take a guide of the same data"),
        ({"shape": [3, 8, 8]}, "has the shape (1, 8, 8), this model (3, 8, 8)"),
        ({"codec": Standardise([0.5], [0.3])}, "has another codec than this model"),
        ({"schedule": LinearChain(26)}, "was trained on other noise levels (LinearChain)"),
        ({"interval": [3, 1]}, "guide.interval must be two numbers 0 <= low < high"),
        ({"interval": "much"}, "guide.interval='much' has the wrong type"),
        ({"rescale": 0.5}, "guide.rescale is not an argument of Autoguidance"),
        ({"_target_": "torch.nn.ReLU"}, "guide._target_=torch.nn.ReLU is not a Guidance; take one of conf/guide"),
    ],
)
def test_a_guide_that_does_not_fit_is_refused_in_one_line(settings, message, weaker):
    main = {"shape": [1, 8, 8], "num_classes": 10, "codec": Identity(), "schedule": LinearChain(25)}
    shape, num_classes, codec, schedule = ({**main, **settings}[key] for key in main)
    own = {key: value for key, value in settings.items() if key not in main}
    node = {"_target_": "litdiffusion.diffusion.denoisers.Autoguidance", "ckpt": str(weaker), **own}
    config = OmegaConf.create({"derived": {"shape": shape, "num_classes": num_classes}})
    with pytest.raises(UserError) as error:
        Guide(node, config, codec, dict)(BOTH.denoiser(schedule), 2.0)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["guide=autoguidance"], "guide=autoguidance needs a smaller or earlier model: guide.ckpt="),
        (["guide=classifier", "conditional=false"], "guidance=1.5 needs a model that was trained with"),
    ],
)
def test_a_run_refuses_it_before_training(overrides, message, built):
    with pytest.raises(UserError, match=message):
        built(*TINY_UNET, "schedule.steps=25", *overrides)


def test_vectors_without_classes_are_guided_by_an_earlier_model(trained, command, tmp_path):
    """``guidance=auto`` guides where another model is named, and weight 0 is that model."""
    points = ["data=gaussian_mixture", "model.hidden=8", "model.layers=1", "schedule.steps=25", "data.size=800"]
    points += [*BARE_RUN[len(TINY) :], "optimizer.lr=0.05"]
    runs = {n: trained(*points, f"trainer.max_steps={n}", folder=str(n)) for n in (8, 4)}
    main, early = (runs[n] / "checkpoints" / "last.ckpt" for n in (8, 4))
    drawn = {}
    for name, path, extra in (
        ("guide", early, []),
        ("zero", main, ["guide=autoguidance", f"guide.ckpt={early}", "guidance=0"]),
        ("auto", main, ["guide=autoguidance", f"guide.ckpt={early}"]),
        ("typed", main, ["guide=autoguidance", f"guide.ckpt={early}", "guidance=1.5"]),
    ):
        status, _, err = command("scripts/sample.py", f"ckpt={path}", "n=5", f"out={tmp_path / name}", *extra)
        assert status == 0, err
        drawn[name] = np.load(tmp_path / name / "samples.npz")["samples"]
    assert np.array_equal(drawn["zero"], drawn["guide"])
    assert np.array_equal(drawn["auto"], drawn["typed"])
    assert not np.array_equal(drawn["auto"], drawn["guide"])


def test_a_notebook_guides_by_live_objects(weaker):
    pretrained = Pretrained(weaker)
    guide = pretrained.guide({"_target_": "litdiffusion.diffusion.denoisers.Autoguidance", "ckpt": str(weaker)})
    assert isinstance(guide, Guide)
    options = {"n": 3, "device": "cpu"}
    same = pretrained.sample(guide=guide, guidance=3.0, **options)
    assert torch.equal(same, pretrained.sample(guidance=1.0, **options))
    assert not torch.equal(same, pretrained.sample(guidance=3.0, **options))


def test_a_sweep_of_weights_has_a_row_and_a_point_for_each(weaker, command, tmp_path):
    options = [
        f"ckpt={weaker}",
        f"out={tmp_path / 'report'}",
        "n=20",
        "samplers=ddim",
        "steps=3",
        "guidance=[0,1,99]",
        "weights=raw",
    ]
    status, out, err = command("scripts/evaluate.py", *options, "device=cpu")
    assert status == 0, err
    with (tmp_path / "report" / "quality.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["calls"]]
    assert [float(row["guidance"]) for row in rows] == [0, 1, 99]
    assert len({row["frechet"] for row in rows}) == 3
    assert all({"precision", "recall", "class_accuracy"} <= row.keys() for row in rows)
    assert "guidance 99" in out
    assert (tmp_path / "report" / "guidance.png").is_file()
    status, _, err = command("scripts/evaluate.py", *options[:1], "guidance=[]")
    assert "guidance=[] names no weight" in one_error(status, err)


def test_the_picture_of_a_sweep_has_a_second_panel_only_for_shares():
    points = [(1.0, 3.0, 0.1), (2.0, 1.5, 0.1)]
    one = guidance_picture([Curve("heun", points)], {"data": 1.0}, "wasserstein", {"precision": [Curve("heun", [])]})
    two = guidance_picture([Curve("heun", points)], {"data": 1.0}, "frechet", {"precision": [Curve("heun", points)]})
    assert one.width < two.width
