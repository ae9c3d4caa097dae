"""Classes: nets are told them, training hides some, samples follow them, guidance sharpens them."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import double, gaussian
from conftest import QUIET, TINY, TINY_UNET, composed
from omegaconf import open_dict
from resuming import whole_and_resumed
from test_cli import one_error
from torch import nn

from litdiffusion.build import Run, build
from litdiffusion.callbacks import FinalSamples
from litdiffusion.callbacks.pictures import states_of
from litdiffusion.commands.training import train
from litdiffusion.config.identity import check_fits
from litdiffusion.data import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import ClassifierFreeGuidance, GaussianMixtureDenoiser
from litdiffusion.diffusion.objectives import DenoisingObjective
from litdiffusion.diffusion.samplers import DDIM
from litdiffusion.diffusion.schedules import LinearChain
from litdiffusion.errors import UserError
from litdiffusion.nets import MLP, Adapter, SourceUNet, UNet
from litdiffusion.nets.classes import ClassEmbedding
from litdiffusion.pretrained import Pretrained
from litdiffusion.training.class_labels import classes_in_proportion, classes_in_turn, grid_columns, with_class_dropout

MEANS, STD, SHARES = torch.tensor([-1.5, 0.0, 1.5]), 0.1, (0.5, 0.3, 0.2)


class Modes(DataModule):
    """Class k is N(MEANS[k], STD²), with probability SHARES[k]: far enough apart that a point tells its class."""

    shape, num_classes = (1,), 3

    def __init__(self, *, size: int = 0, batch_size: int, val_size: int, seed: int) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, seed=seed)
        self.size = size

    def read(self) -> tuple[Batch, Batch]:
        generator = torch.Generator().manual_seed(0)

        def part(n: int) -> Batch:
            class_label = torch.multinomial(torch.tensor(SHARES), n, replacement=True, generator=generator)
            return Batch(MEANS[class_label, None] + STD * torch.randn(n, 1, generator=generator), class_label)

        return part(self.size), part(self.val_size)


MODES = [
    "data._target_=test_conditional.Modes",
    "data.size=3000",
    "data.val_size=300",
    "~data.standardise",
    "conditional=true",
]
QUIETER = [*TINY, *QUIET, "trainer.enable_progress_bar=false"]


def nearest_mode(x):
    return (x.view(-1, 1) - MEANS).abs().argmin(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def started(make, *arguments, **settings):
    torch.manual_seed(0)
    return make(*arguments, **settings)


NETS = {
    "unet": (lambda **s: started(SourceUNet, (1, 8, 8), 8, 1, **s), (1, 8, 8)),
    "mlp": (lambda **s: started(MLP, (2,), (1.0, 10.0), 8, 2, **s), (2,)),
}


@pytest.mark.parametrize("name", NETS)
def test_no_class_is_the_last_row_and_none_alike(name):
    make, shape = NETS[name]
    net, x, noise_label = make(num_classes=3), torch.randn(4, *shape), torch.tensor([1.0, 2.0, 5.0, 9.0])
    told = [net(x, noise_label, torch.full((4,), k)) for k in range(4)]
    assert torch.equal(net(x, noise_label), told[3])
    assert (told[0] - told[1]).abs().max() > 1e-2
    mixed = net(x, noise_label, torch.tensor([2, 0, 3, 1]))
    expected = torch.stack([told[k][i] for i, k in enumerate([2, 0, 3, 1])])
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-6)


def test_a_conditional_unet_begins_with_the_weights_of_the_unconditional_one_and_the_classes_vectors():
    plain, told = (NETS["unet"][0](num_classes=num_classes) for num_classes in (0, 5))
    assert [name for name in told.state_dict() if name not in plain.state_dict()] == ["class_embedding.table.weight"]
    assert all(torch.equal(value, told.state_dict()[name]) for name, value in plain.state_dict().items())
    x, noise_label = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 70.0])
    torch.nn.init.zeros_(told.class_embedding.table.weight)
    assert torch.equal(plain(x, noise_label), told(x, noise_label, torch.tensor([4, 0])))


def test_a_class_shifts_the_biases_of_the_unets_time_maps():
    told, plain = NETS["unet"][0](num_classes=3), NETS["unet"][0]()
    vector = told.class_embedding.table.weight[1].detach()
    with torch.no_grad():
        for time_map in [*plain.time_down, *plain.time_up]:
            time_map.bias += time_map.weight @ vector
    x, noise_label = torch.randn(3, 1, 8, 8), torch.tensor([1.0, 5.0, 90.0])
    torch.testing.assert_close(
        told(x, noise_label, torch.ones(3, dtype=torch.long)), plain(x, noise_label), rtol=1e-4, atol=1e-5
    )


def test_a_class_shifts_the_bias_of_the_mlps_first_layer():
    told, plain = NETS["mlp"][0](num_classes=3), NETS["mlp"][0]()
    state = told.state_dict()
    vector, first = state.pop("class_embedding.table.weight")[2], state["layers.0.0.weight"]
    state["layers.0.0.weight"] = first[:, :3]
    state["layers.0.0.bias"] = state["layers.0.0.bias"] + first[:, 3:] @ vector
    plain.load_state_dict(state)
    x, noise_label = torch.randn(5, 2), torch.linspace(1, 10, 5)
    torch.testing.assert_close(told(x, noise_label, torch.full((5,), 2)), plain(x, noise_label), rtol=1e-5, atol=1e-6)


def test_nets_without_classes_are_what_they_were_before_classes_came():
    torch.manual_seed(0)
    image = SourceUNet((1, 8, 8), 4, 1)(torch.ones(1, 1, 8, 8), torch.tensor([3.0])).sum().item()
    assert image == pytest.approx(15.891491, rel=1e-5)
    torch.manual_seed(0)
    net = MLP((2,), (1.0, 10.0), 8, 2)
    assert [tuple(p.shape) for p in net.parameters()] == [(8, 3), (8,), (8, 8), (8,), (2, 8), (2,)]
    x, noise_label = torch.randn(3, 2), torch.ones(3)
    assert torch.equal(net(x, noise_label, torch.zeros(3, dtype=torch.long)), net(x, noise_label))


def test_a_table_refuses_no_class():
    with pytest.raises(UserError, match="of at least 1, got -1 and 8"):
        ClassEmbedding(-1, 8)


def test_a_net_from_elsewhere_is_told_classes_through_the_adapter(built):
    pytest.importorskip("diffusers", reason="the third-party U-Net needs diffusers")
    options = ["data=digits", "data.batch_size=8", "model=diffusers_unet", "model.net.block_out_channels=[8,8]"]
    net = built(*options, "conditional=true").module.denoiser.net.eval()
    assert net.net.class_embedding.weight.shape[0] == 11
    x, noise_label = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 90.0])
    assert torch.equal(net(x, noise_label), net(x, noise_label, torch.tensor([10, 10])))
    assert not torch.equal(net(x, noise_label), net(x, noise_label, torch.tensor([10, 4])))


def test_a_net_from_elsewhere_is_told_conditions_in_the_place_of_its_class(built):
    """Bit for bit what the net of diffusers does that adds a given vector to its embedding of the time."""
    diffusers = pytest.importorskip("diffusers", reason="the third-party U-Net needs diffusers")
    options = ["data=digits", "data.batch_size=8", "model=diffusers_unet", "model.net.block_out_channels=[8,8]"]
    net = built(*options, "conditional=[class,grey]").module.denoiser.net.eval()
    x, noise_label = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 90.0])
    told = torch.tensor([[4.0, 0.3], [torch.nan, 0.2]])
    theirs = diffusers.UNet2DModel(**{**net.net.config, "class_embed_type": "identity"}).eval()
    theirs.load_state_dict({k: v for k, v in net.net.state_dict().items() if not k.startswith("class_embedding")})
    vector = net.net.class_embedding(told)
    assert torch.equal(net(x, noise_label, told), theirs(x, noise_label, vector).sample)
    assert torch.equal(net(x, noise_label), net(x, noise_label, torch.full((2, 2), torch.nan)))
    assert not torch.equal(net(x, noise_label, told), net(x, noise_label, told.roll(1, 0)))
    with pytest.raises(UserError, match="cannot be told conditions: it adds no class_embedding"):
        Adapter(nn.Identity(), conditions=[{"mean": 0.0, "std": 1.0}])


def test_hidden_labels_are_a_share_and_the_others_stay():
    class_label = torch.arange(40_000) % 3
    seen = with_class_dropout(class_label, 3, 0.1)
    share = (seen == 3).double().mean().item()
    assert share == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 40_000))
    assert torch.equal(seen[seen < 3], class_label[seen < 3])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert with_class_dropout(class_label, 3, 0.0) is class_label
    assert torch.equal(torch.get_rng_state(), state)


def test_classes_come_in_turn_or_as_often_as_in_the_data():
    assert classes_in_turn(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert classes_in_turn(3, 5, start=9).tolist() == [4, 0, 1]
    assert classes_in_turn(7, 0) is None
    class_label = torch.tensor([2] * 20 + [0] * 50 + [1] * 30)
    found = classes_in_proportion(class_label, 2000)
    for start, count in ((0, 2000), (0, 100), (777, 100), (1900, 100)):
        counts = found[start : start + count].bincount(minlength=3)
        assert (counts - count * torch.tensor(SHARES)).abs().max() <= 3


@pytest.mark.parametrize(
    ("count", "num_classes", "width"), [(64, 0, 8), (64, 10, 10), (64, 2, 8), (64, 100, 8), (1, 0, 1), (100, 10, 10)]
)
def test_grids_put_a_class_in_a_column_where_they_can(count, num_classes, width):
    assert grid_columns(count, num_classes) == width


def spied(monkeypatch):
    """(x_0, class_label) of every batch that is trained or validated on."""
    seen, honest = [], DenoisingObjective.forward

    def forward(self, denoiser, x_0, class_label=None, *more, **others):
        seen.append((x_0, class_label))
        return honest(self, denoiser, x_0, class_label, *more, **others)

    monkeypatch.setattr(DenoisingObjective, "forward", forward)
    return seen


def test_every_item_is_trained_with_its_own_class_or_none_and_validated_with_its_own(fitted, monkeypatch):
    seen = spied(monkeypatch)
    accumulated = ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=8"]  # 8 batches are 4 steps
    fitted(*MODES, "data.batch_size=200", "class_dropout=0.25", *accumulated)
    assert [len(x_0) for x_0, _ in seen] == [200] * 8 + [200, 100]
    x_0, class_label = (torch.cat(parts) for parts in zip(*seen[:8], strict=True))
    assert torch.equal(class_label[class_label < 3], nearest_mode(x_0)[class_label < 3])
    assert (class_label == 3).double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.19 / 1600))
    assert all(torch.equal(class_label, nearest_mode(x_0)) for x_0, class_label in seen[8:])


def test_an_unconditional_run_is_told_nothing_and_draws_no_more_numbers(fitted, monkeypatch):
    seen = spied(monkeypatch)
    runs = [fitted(*MODES, "conditional=false", f"class_dropout={share}").module for share in (0.1, 0.5)]
    assert {class_label for _, class_label in seen} == {None}
    assert all(torch.equal(value, runs[1].state_dict()[name]) for name, value in runs[0].state_dict().items())


def test_a_conditional_run_resumes_bit_for_bit(tmp_path):
    overrides = [*QUIETER, *MODES, "data.batch_size=500", "trainer.max_steps=9", "trainer.val_check_interval=3"]
    whole_and_resumed(overrides, 5, tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small net that has learned `Modes` in a few seconds."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("modes")
    kept = ["callbacks.trajectory=null", "callbacks.forward_process=null", "callbacks.field=null"]
    short = ["trainer.max_steps=600", "trainer.val_check_interval=600", "trainer.log_every_n_steps=100"]
    cfg = composed(
        *(setting for setting in TINY if setting.split("=")[0] not in {s.split("=")[0] for s in short}),
        *short,
        *MODES,
        *kept,
        *["callbacks.final_samples=null", "callbacks.progress_bar=null", "logger=none"],
        *["schedule=cosine", "schedule.steps=40", "model.hidden=64", "optimizer.lr=5e-3", "data.batch_size=200"],
        *["ema_decay=0.99", "class_dropout=0.2"],
    )
    for name in cfg.callbacks:
        if name not in ("last", "best"):
            cfg.callbacks[name] = None
    train(cfg, Run(folder / "run"))
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def draw(command, checkpoint, tmp_path):
    """Samples (n,) and their labels (n,), drawn by scripts/sample.py."""

    def run(*args: str, out: str = "drawn"):
        status, _, err = command("scripts/sample.py", f"ckpt={checkpoint}", f"out={tmp_path / out}", *args)
        assert status == 0, err
        with np.load(tmp_path / out / "samples.npz") as file:
            return torch.from_numpy(file["samples"])[:, 0], torch.from_numpy(file["class_labels"])

    return run


def test_samples_of_a_class_lie_in_its_mode(draw):
    x, class_label = draw("n=300")
    assert torch.equal(class_label, torch.arange(300) % 3)
    assert (nearest_mode(x) == class_label).double().mean() > 0.97
    for k in range(3):
        assert x[class_label == k].median().item() == pytest.approx(MEANS[k].item(), abs=0.08)


def test_samples_of_no_class_lie_in_all_modes_as_often_as_data(draw):
    x, _ = draw("n=1000", "guidance=0")
    shares = nearest_mode(x).bincount(minlength=3) / 1000
    np.testing.assert_allclose(shares, SHARES, atol=0.1)


def test_classes_are_chosen_and_do_not_depend_on_the_batches(draw):
    x, class_label = draw("n=7", "class_label=[2,0]", "seed=3")
    assert class_label.tolist() == [2, 0, 2, 0, 2, 0, 2]
    again, _ = draw("n=7", "class_label=[2,0]", "seed=3", "batch_size=3", out="again")
    torch.testing.assert_close(again, x, rtol=1e-4, atol=1e-5)
    shifted, class_label = draw("n=1", "class_label=2", "seed=5", out="shifted")
    assert class_label.tolist() == [2]
    torch.testing.assert_close(shifted, x[2:3], rtol=1e-4, atol=1e-5)


def test_guidance_at_weight_one_is_the_conditional_draw(draw):
    plain, guided = draw("n=20", out="plain")[0], draw("n=20", "guidance=1", out="guided")[0]
    assert torch.equal(plain, guided)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["class_label=3"], "label must be whole numbers from 0 to 2, got 3"),
        (["class_label=[0,-1]"], "label must be whole numbers from 0 to 2, got -1"),
        (["class_label=one"], "label must be whole numbers from 0 to 2, got one"),
        (["class_label=[]"], "class_label=[] names no class"),
        (["guidance=much"], "guidance must be a finite number, or auto; 1 is none, got 'much'"),
        (["guidance=nan"], "guidance must be a finite number, or auto; 1 is none, got nan"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_classes_end_in_one_line(args, message, command, checkpoint):
    status, _, err = command("scripts/sample.py", f"ckpt={checkpoint}", *args)
    assert message in one_error(status, err)
    assert not (checkpoint.parent / "samples_000").exists()


def stored(experiment, path: Path) -> Path:
    """A checkpoint of an untrained model."""
    torch.save({"state_dict": experiment.module.state_dict(), "litdiffusion": experiment.module.description}, path)
    return path


def test_a_model_without_classes_is_asked_for_none(built, command, tmp_path):
    path = stored(built(*MODES, "conditional=false", "schedule.steps=25"), tmp_path / "x.ckpt")
    pretrained = Pretrained(path)
    assert pretrained.num_classes == 0
    assert pretrained.class_labels(5) is None
    with pytest.raises(UserError, match="class_label=0 needs a model that was trained with conditional=true"):
        pretrained.class_labels(5, 0)
    status, _, err = command("scripts/sample.py", f"ckpt={path}", "guidance=2")
    assert "guidance=2 needs a model that was trained with conditional=true" in one_error(status, err)


def test_guidance_needs_a_model_that_was_also_trained_without_classes(built, tmp_path):
    pretrained = Pretrained(stored(built(*MODES, "class_dropout=0", "schedule.steps=25"), tmp_path / "x.ckpt"))
    with pytest.raises(UserError, match="with class_dropout above 0; leave it out"):
        pretrained.denoiser_on(torch.device("cpu"), clip=True, guidance=2)
    pretrained.denoiser_on(torch.device("cpu"), clip=True, guidance=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["conditional=true"], "conditional=true needs labelled data"),
        (["conditional=perhaps"], "conditional must be true, false or auto, or a list of .*, got 'perhaps'"),
        (["class_dropout=1"], r"class_dropout must be a number in \[0, 1\); 0.1 is usual, got 1"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_runs_that_cannot_learn_classes_are_refused(options, message, built):
    with pytest.raises(UserError, match=message):
        built(*options)


def test_a_net_that_takes_no_classes_is_refused(tmp_path):
    cfg = composed(*QUIETER, *MODES)
    with open_dict(cfg):
        del cfg.model["num_classes"]
    with pytest.raises(UserError, match=r"needs a net with num_classes, litdiffusion\.nets\.MLP has none"):
        build(cfg, Run(tmp_path))


def test_labels_out_of_range_are_refused(built, monkeypatch):
    monkeypatch.setattr(Modes, "num_classes", 2)
    with pytest.raises(UserError, match="class labels must be from 0 to 1, the data have 0 to 2"):
        built(*MODES)


def test_checkpoints_written_before_classes_came_still_fit(built):
    module = built().module
    then = {
        key: value for key, value in module.description["config"].items() if key not in ("conditional", "class_dropout")
    }
    then["model"] = {key: value for key, value in then["model"].items() if key != "num_classes"}
    content = {"state_dict": module.state_dict(), "litdiffusion": {"config": then}}
    check_fits(content, module, "x.ckpt")
    told, plain = built(*MODES).module, built(*MODES, "conditional=false").module
    with pytest.raises(UserError, match=r"was trained with conditional=False, this run has conditional=True"):
        check_fits({"state_dict": plain.state_dict(), "litdiffusion": plain.description}, told, "x.ckpt")


def loaded(checkpoint, built):
    """The module of the checkpoint, attached to a trainer and its data."""
    shape = ["schedule=cosine", "schedule.steps=40", "model.hidden=64"]
    experiment = built(*MODES, *shape)
    experiment.module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    experiment.module.trainer = experiment.trainer
    experiment.trainer.datamodule = experiment.data
    return experiment.module


def test_pictures_draw_the_classes_in_turn_and_vectors_that_are_measured_as_often_as_data(
    checkpoint, built, tmp_path, monkeypatch
):
    module = loaded(checkpoint, built)
    x = states_of(module, module.sampler, 300, "ema", 0, shown=1)[-1].x
    assert (nearest_mode(x) == torch.arange(300) % 3).double().mean() > 0.97
    told, honest = [], MLP.forward
    monkeypatch.setattr(
        MLP,
        "forward",
        lambda net, x, t, class_label=None: (told.append(class_label), honest(net, x, t, class_label))[1],
    )
    FinalSamples(tmp_path, points=500, sets=2).on_train_end(module.trainer, module)
    frequency = module.trainer.datamodule.train.class_label.bincount() / 3000
    assert all(torch.equal(class_label, told[0]) for class_label in told)
    np.testing.assert_allclose(told[0].bincount() / 1000, frequency, atol=0.01)
    np.testing.assert_allclose(told[0][:500].bincount() / 500, frequency, atol=0.01)


def test_likelihood_is_measured_given_the_items_own_class(checkpoint, command, monkeypatch):
    """A class tells as many nats as the entropy of the classes; the net without a class is a worse one beside that."""

    few = ("n=60", "batch_size=60", "trust=test_conditional")

    def nats(*args: str) -> float:
        status, out, err = command("scripts/likelihood.py", f"ckpt={checkpoint}", *few, *args)
        assert status == 0, err
        (row,) = [line for line in out.splitlines() if line.startswith("bound ")]
        return float(row.split()[-2])

    given = nats()
    monkeypatch.setattr(Pretrained, "class_labels_of", lambda self, data, n, *_: None)
    entropy = -sum(share * math.log(share) for share in SHARES)
    assert nats() - given > 0.8 * entropy
    monkeypatch.setattr(Pretrained, "class_labels_of", lambda self, data, n, *_: (data.val.class_label[:n] + 1) % 3)
    assert nats() - given > 20


def test_inpainting_tells_the_net_what_the_held_out_images_are(built, command, tmp_path, monkeypatch):
    experiment = built(*TINY_UNET, "conditional=true", "schedule.steps=25")
    path, told = stored(experiment, tmp_path / "x.ckpt"), []
    honest = UNet.forward
    monkeypatch.setattr(
        UNet,
        "forward",
        lambda net, x, t, class_label=None: (told.append(class_label), honest(net, x, t, class_label))[1],
    )
    few = ["n=3", "samples=2", "steps=2", "resample=1", "batch_size=4"]
    status, _, err = command("scripts/inpaint.py", f"ckpt={path}", *few)
    assert status == 0, err
    first, second, third = experiment.data.val.class_label[:3].tolist()
    assert [class_label.tolist() for class_label in told] == [[first] * 2 + [second] * 2] * 2 + [[third] * 2] * 2


class Halves(torch.nn.Module):
    """Exact: N(-1, STD²) and N(1, STD²) as classes 0 and 1, their even mixture without a class (2 or None)."""

    std = 0.5

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
        stds = double([[self.std]])
        self.parts = [GaussianMixtureDenoiser(schedule, double([1.0]), double([[m]]), stds) for m in (-1.0, 1.0)]
        self.free = GaussianMixtureDenoiser(schedule, double([1.0, 1.0]), double([[-1.0], [1.0]]), stds)

    def forward(self, x_t, level, class_label=None):
        return self.free(x_t, level) if class_label is None else self.parts[int(class_label[0])](x_t, level)


def starts(n):
    quantiles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.distributions.Normal(0.0, 1.0).icdf(quantiles)[:, None]


def test_guidance_makes_samples_more_typical_and_less_varied():
    """Along the deterministic flow from the quantiles of the prior, exact denoisers: no Monte Carlo, no training."""
    halves, class_label = Halves(LinearChain(1000)), torch.ones(2000, dtype=torch.long)
    drawn = [DDIM(200).sample(ClassifierFreeGuidance(halves, w), starts(2000), class_label) for w in (1.0, 2.0, 4.0)]
    mean, std = ([f(x).item() for x in drawn] for f in (torch.mean, torch.std))
    assert (mean[0], std[0]) == pytest.approx((1.0, Halves.std), abs=0.01)
    # p(class 1 | x) = sigmoid(2 x / std²) for these two modes.
    doubt = [(1 - torch.sigmoid(2 * x / Halves.std**2)).mean().item() for x in drawn]
    assert doubt[0] > 3 * doubt[1] > 9 * doubt[2]
    assert mean[0] < mean[1] < mean[2]
    assert std[0] > std[1] > std[2]


def test_guided_samples_of_gaussians_are_those_of_an_affine_map():
    """Class and no class both Gaussian: each step of DDIM is affine, and its slope and offset are known."""
    schedule, weight, (mean, std) = LinearChain(200), 3.0, (1.0, 0.5)
    wide = GaussianMixtureDenoiser(schedule, double([1.0]), double([[0.0]]), double([[1.0]]))

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t, level, class_label=None):
            return wide(x_t, level) if class_label is None else gaussian(schedule)(x_t, level)

    sampler = DDIM(20)
    slope, offset = 1.0, 0.0
    levels = [(level.alpha.item(), level.sigma.item()) for level in sampler.levels(schedule)]
    for (a, s), (after_a, after_s) in pairwise(levels):
        gain = weight * a * std**2 / (a**2 * std**2 + s**2) + (1 - weight) * a / (a**2 + s**2)
        constant = weight * (mean - a * std**2 / (a**2 * std**2 + s**2) * a * mean)
        # x_0 = gain x + constant, eps = (x - a x_0) / s, x_after = after_a x_0 + after_s eps
        step = after_a * gain + after_s * (1 - a * gain) / s
        offset = step * offset + (after_a - after_s * a / s) * constant
        slope *= step
    x = starts(50)
    found = sampler.sample(ClassifierFreeGuidance(Both(), weight), x, torch.zeros(50))
    torch.testing.assert_close(found, slope * x + offset, rtol=1e-9, atol=1e-9)
    assert abs(slope) < std


def test_guidance_is_that_of_the_run_unless_another_is_asked_for(built, tmp_path):
    experiment = built(*MODES, "schedule.steps=25", "guidance=3")
    torch.nn.init.normal_(experiment.module.ema.model.net.class_embedding.table.weight)
    pretrained = Pretrained(stored(experiment, tmp_path / "x.ckpt"))
    own, same, none = (pretrained.sample(6, guidance=weight) for weight in (None, 3.0, 1.0))
    assert torch.equal(own, same)
    assert not torch.equal(own, none)


@pytest.mark.parametrize(
    ("words", "weight"),
    [([], 1.5), (["guidance=1"], 1.0), (["conditional=false"], 1.0), (["class_dropout=0"], 1.0)],
)
def test_images_with_classes_are_guided_by_default(built, words, weight):
    assert built(*TINY_UNET, *words).module.guidance == weight


@pytest.mark.parametrize("words", [["conditional=false"], ["class_dropout=0"]])
def test_guidance_without_its_model_is_refused(built, words):
    with pytest.raises(UserError, match="guidance=2 needs a model that was trained with"):
        built(*TINY_UNET, *words, "guidance=2")
