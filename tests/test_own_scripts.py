"""What a Lightning user writes in a script of one's own: live parts, a plain Trainer, any loader, no config."""

import functools
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from litdiffusion.callbacks import Field, FinalSamples, ForwardProcess, LiveQuality, Trajectory
from litdiffusion.data import Digits, Spiral, facts_of
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.objectives import DenoisingObjective, HybridObjective
from litdiffusion.diffusion.parameterizations import EDM, Epsilon, Flow, V
from litdiffusion.diffusion.samplers import DDIM, Heun
from litdiffusion.diffusion.schedules import DiscreteSchedule, GeometricLadder, LinearChain, LinearFlow, LinearSigma
from litdiffusion.diffusion.times import LogNormalSigma, UniformTimes
from litdiffusion.diffusion.weightings import Likelihood, Simple
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import VectorQuality
from litdiffusion.nets import MLP, Adapter, SourceUNet
from litdiffusion.parts.described import Described, description
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export
from litdiffusion.training import DiffusionModule
from litdiffusion.training.lr import WarmupCosine
from litdiffusion.training.optimizers import NetAdamW

POINTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(40) % 3
IMAGES = (POINTS.repeat(1, 32).view(40, 1, 8, 8).sigmoid() * 255).to(torch.uint8)


class Own(nn.Module):
    """A net that says nothing of how it was made."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        return self.inner(torch.cat([x, noise_label[:, None] / 50], dim=1))


class OwnDescribed(Described, Own):
    """The same, which remembers it."""

    def __init__(self, width: int = 8):
        super().__init__(width)


def made(shape: tuple[int, ...] = (2,), net: nn.Module | None = None, **settings) -> DiffusionModule:
    """A module of live parts."""
    schedule = LinearChain(50)
    if net is None and len(shape) == 3:
        net = SourceUNet(shape, base_channels=4, depth=1)
    elif net is None:
        net = MLP(shape, schedule.noise_label_range, hidden=8, num_classes=settings.get("num_classes", 0))
    objective = DenoisingObjective(UniformTimes(schedule), Simple())
    return DiffusionModule(Denoiser(net, schedule, Epsilon()), objective, shape=shape, **settings)


def spiral(**settings) -> Spiral:
    return Spiral(**{"size": 64, "val_size": 16, "batch_size": 16, "seed": 0, **settings})


def pairs() -> DataLoader:
    return DataLoader(TensorDataset(POINTS, CLASSES), batch_size=16)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Lightning's Trainer as it is, but for the progress bar, the model's summary and the device."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return lambda **settings: L.Trainer(**{"max_epochs": 2, "default_root_dir": tmp_path, **quiet, **settings})


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


LOADERS = {
    "data module": (spiral, {}),
    "digits": (lambda: Digits(batch_size=600, val_size=300, seed=0), {"shape": (1, 8, 8)}),
    "one tensor": (lambda: DataLoader(TensorDataset(POINTS), batch_size=16), {}),
    "pairs": (pairs, {}),
    "num_classes": (pairs, {"num_classes": 3}),
    "plain tensors": (lambda: DataLoader(POINTS, batch_size=16), {}),
    "float64": (lambda: DataLoader(POINTS.double(), batch_size=16), {}),
    "bytes": (lambda: DataLoader(TensorDataset(IMAGES, CLASSES), batch_size=16), {"shape": (1, 8, 8)}),
}
ALIKE = ("data module", "one tensor", "pairs", "plain tensors", "float64")


@pytest.mark.parametrize(
    ("loader", "settings"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in ALIKE)) for name, case in LOADERS.items()],
)
def test_every_loader_trains_validates_tests_predicts_and_is_stored(loader, settings, trainer):
    module, data = made(**settings), loader()
    first = trainer()
    first.fit(module, data)
    assert first.global_step > 0
    path = first.checkpoint_callback.best_model_path
    numbers = [measure(module, data, verbose=False)[0] for measure in (first.validate, first.test)]
    assert [next(iter(row)) for row in numbers] == ["val/loss", "test/loss"]
    items = first.predict(module, data)
    assert torch.cat(items).isfinite().all()
    assert {(x.dtype, *x.shape[1:]) for x in items} == {(torch.float32, *module.shape)}
    fresh, other = trainer(), made(**settings)
    assert fresh.validate(other, data, ckpt_path=path, verbose=False) == numbers[:1]
    assert fresh.test(other, data, ckpt_path=path, verbose=False) == numbers[1:]
    again = trainer().predict(made(**settings), data, ckpt_path=path)
    assert all(torch.equal(a, b) for a, b in zip(items, again, strict=True))
    samples = Pretrained(path).sample(n=3, seed=1)
    assert samples.shape == (3, *module.shape)
    assert samples.isfinite().all()
    assert same(DiffusionModule.load_from_checkpoint(path).state_dict(), module.state_dict())


def test_train_and_validation_loaders_and_several_of_them(trainer):
    module, loader = made(), DataLoader(POINTS, batch_size=16)
    fit = trainer()
    fit.fit(module, loader, [loader, DataLoader(POINTS[:10], batch_size=5)])
    assert fit.callback_metrics["val/loss"].isfinite()
    assert len(fit.validate(module, [loader, loader], verbose=False)) == 2
    assert [len(part) for part in fit.predict(module, [loader, loader])] == [3, 3]


def test_labels_that_a_model_of_classes_does_not_know_are_refused_in_one_line(trainer):
    for class_labels, message in (
        (None, "needs batches"),
        (CLASSES.float(), "needs batches"),
        (CLASSES + 1, "from 0 to 2"),
    ):
        data = TensorDataset(POINTS) if class_labels is None else TensorDataset(POINTS, class_labels)
        with pytest.raises(UserError, match=message) as error:
            trainer(logger=False).fit(made(num_classes=3), DataLoader(data, batch_size=16))
        assert "\n" not in str(error.value)


def test_predictions_are_of_the_classes_of_the_items(trainer):
    """A net that returns its class, told of no noise: x_0 estimated as v is the class at every step's end."""

    class Echo(nn.Module):
        def forward(self, x, noise_label, class_label=None):
            return torch.full_like(x, 0.0) + class_label[:, None]

    schedule = LinearChain(50)
    denoiser = Denoiser(Echo(), schedule, V())
    denoiser.net.weight = nn.Parameter(torch.zeros(1))
    objective = DenoisingObjective(UniformTimes(schedule), Simple())
    module = DiffusionModule(denoiser, objective, shape=(2,), num_classes=3, sampler=DDIM(), ema_decay=0)
    found = torch.cat(trainer().predict(module, pairs()))
    alike = [found[k == CLASSES].mean() for k in range(3)]
    assert alike == sorted(alike, reverse=True)  # x_0 = alpha x_t - sigma v falls with v


@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_resumed_fit_equals_the_uninterrupted_one_bit_for_bit(at, trainer, tmp_path):
    """In the middle of an epoch of four batches, and between two."""

    def fitted(path: str | None = None) -> tuple[DiffusionModule, L.Trainer]:
        schedule = functools.partial(WarmupCosine, warmup_steps=2)
        module = made(lr_schedule=schedule, optimizer=functools.partial(NetAdamW, lr=3e-3))
        saver = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
        fit = trainer(max_epochs=3, callbacks=[] if path else [saver], logger=False)
        fit.fit(module, spiral(), ckpt_path=path)
        return module, fit

    whole, first = fitted()
    torch.manual_seed(99)
    resumed, second = fitted(str(tmp_path / "saved" / f"step={at}.ckpt"))
    assert first.global_step == second.global_step == 12
    assert same(whole.state_dict(), resumed.state_dict())
    assert first.callback_metrics == second.callback_metrics


def test_a_loaded_module_trains_on(trainer, tmp_path):
    """By the optimizer and the rate that it was trained with, from where it stood."""
    module = made(
        optimizer=functools.partial(NetAdamW, lr=2e-3), lr_schedule=functools.partial(WarmupCosine, warmup_steps=1)
    )
    trainer(logger=False).fit(module, spiral())
    path = next(tmp_path.rglob("*.ckpt"))
    loaded = DiffusionModule.load_from_checkpoint(path, map_location="cpu", weights_only=True, seed=5)
    assert (type(loaded), loaded.seed, loaded.device.type) == (DiffusionModule, 5, "cpu")
    fit = trainer(max_epochs=3, logger=False)
    fit.fit(loaded, spiral(), ckpt_path=path)
    assert fit.global_step == 12
    assert fit.optimizers[0].param_groups[0]["initial_lr"] == 2e-3


@pytest.mark.parametrize(
    "overrides", [[], ["optimizer=muon", "lr_schedule=constant", "recipe=edm", "times=loss_aware"]]
)
def test_a_module_of_the_command_line_is_loaded_likewise(overrides, trained, trainer):
    off = [f"callbacks.{name}=null" for name in ("trajectory", "final_samples", "field", "forward_process")]
    folder = trained(*off, "metrics=none", "data.size=64", "data.batch_size=16", "data.val_size=16", *overrides)
    path = folder / "checkpoints" / "last.ckpt"
    loaded = DiffusionModule.load_from_checkpoint(path)
    assert same(loaded.state_dict(), torch.load(path, weights_only=True)["state_dict"])
    fit = trainer(max_epochs=1, logger=False)
    fit.fit(loaded, spiral())
    assert fit.global_step == 4


def test_the_test_split_is_measured_by_test_and_no_other(trainer):
    class Split(Spiral):
        def test(self) -> Batch:
            return Batch(5 + torch.zeros(8, 2))

    module, data, fit = made(), Split(size=64, val_size=16, batch_size=16, seed=0), trainer(logger=False)
    far = DataLoader(torch.full((8, 2), 5.0), batch_size=16)
    (found,), (expected,) = fit.test(module, data, verbose=False), fit.validate(module, far, verbose=False)
    assert found["test/loss"] == expected["val/loss"] != fit.validate(module, data, verbose=False)[0]["val/loss"]


def test_map_location_may_be_a_function_and_a_subclass_stays_one(trainer, tmp_path):
    class Mine(DiffusionModule):
        pass

    trainer(logger=False, max_steps=1).fit(made(), spiral())
    loaded = Mine.load_from_checkpoint(next(tmp_path.rglob("*.ckpt")), map_location=lambda storage, place: storage)
    assert type(loaded) is Mine


def stored(module: DiffusionModule, path: Path) -> Path:
    """The checkpoint of a module after one step."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    fit = L.Trainer(max_steps=1, logger=False, accelerator="cpu", **quiet)
    fit.fit(module, DataLoader(torch.randn(16, *module.shape), batch_size=16))
    fit.save_checkpoint(path)
    return path


def edm() -> DiffusionModule:
    schedule = LinearSigma()
    net = Adapter(MLP((2,), schedule.noise_label_range, hidden=8), num_classes=0)
    objective = DenoisingObjective(LogNormalSigma(schedule, sigma_data=1.0), Simple())
    return DiffusionModule(Denoiser(net, schedule, EDM(0.7)), objective, (2,), sampler=Heun(5).respaced(7))


def flow() -> DiffusionModule:
    schedule = LinearFlow()
    objective = DenoisingObjective(UniformTimes(schedule), Likelihood(schedule))
    denoiser = Denoiser(MLP((3,), schedule.noise_label_range, hidden=8), schedule, Flow(schedule))
    return DiffusionModule(denoiser, objective, (3,), sampler=Heun(5), clip=(-2.0, 2.0))


def learned() -> DiffusionModule:
    schedule = DiscreteSchedule(torch.linspace(0.01, 0.3, 30))
    denoiser = Denoiser(MLP((2,), (1, 30), hidden=8, out_channels=4), schedule, Epsilon(), learned_variance=True)
    objective = HybridObjective(UniformTimes(schedule), Simple(), decoder="gaussian", factor=0.01)
    return DiffusionModule(denoiser, objective, (2,))


def noise_ladder() -> DiffusionModule:
    schedule = GeometricLadder(12, sigma_max=3.0)
    objective = DenoisingObjective(UniformTimes(schedule), Simple())
    return DiffusionModule(Denoiser(MLP((2,), (1, 12), hidden=8), schedule, Epsilon()), objective, (2,))


@pytest.mark.parametrize("make", [edm, flow, learned, noise_ladder])
def test_a_checkpoint_describes_the_parts_of_a_script(make, tmp_path):
    module = make()
    path = stored(module, tmp_path / "x.ckpt")
    loaded = DiffusionModule.load_from_checkpoint(path)
    assert same(loaded.state_dict(), module.state_dict())
    for part in ("net", "schedule", "parameterization"):
        assert type(getattr(loaded.denoiser, part)) is type(getattr(module.denoiser, part))
    assert loaded.denoiser.schedule.noise_label_range == module.denoiser.schedule.noise_label_range
    assert torch.equal(loaded.denoiser.schedule.at(0.3).sigma, module.denoiser.schedule.at(0.3).sigma)
    assert loaded.sampler.steps == module.sampler.steps
    assert type(loaded.objective) is type(module.objective)
    assert getattr(loaded.objective, "factor", 0) == getattr(module.objective, "factor", 0)
    folder = export(path, tmp_path / "exported")
    assert torch.equal(Pretrained(folder).sample(n=2, seed=3), Pretrained(path).sample(n=2, seed=3))


def test_a_net_that_cannot_be_described_is_loaded_by_the_module_itself(tmp_path):
    module = made(net=Own())
    path = stored(module, tmp_path / "x.ckpt")
    for load in (Pretrained, DiffusionModule.load_from_checkpoint):
        with pytest.raises(UserError, match=r"model is an object of test_own_scripts\.Own .*module=module") as error:
            load(path)
        assert "\n" not in str(error.value)
    other = made(net=Own())
    expected = module.draw(2, lambda x: torch.ones_like(x))
    found = Pretrained(path, module=other)
    x = found.sampler.sample(found.denoiser, torch.ones(2, 2), noise=lambda x: torch.ones_like(x))
    assert torch.equal(x, expected)
    assert not same(found.denoiser.state_dict(), other.denoiser.state_dict())  # what was passed stays as it is
    with pytest.raises(UserError, match="do not fit this module"):
        Pretrained(path, module=made(net=Own(width=9)))


def test_a_net_of_ones_own_that_is_described_needs_only_trust(tmp_path):
    module = made(net=OwnDescribed(width=5))
    path = stored(module, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="trust=test_own_scripts"):
        Pretrained(path)
    assert Pretrained(path, trust="test_own_scripts").sample(n=2).shape == (2, 2)


def test_what_is_not_a_part_is_described_as_unknown():
    assert description(Adapter(nn.Linear(2, 2)))["net"] == {"_unknown_": "torch.nn.modules.Linear"}
    assert description(lambda net: None) == {
        "_unknown_": "test_own_scripts.test_what_is_not_a_part_is_described_as_unknown.<locals>.<lambda>"
    }
    assert description({"a": (1, torch.ones(2)), "b": None}) == {"a": [1, [1.0, 1.0]], "b": None}


def test_an_unknown_optimizer_is_refused_only_where_it_is_needed(trainer, tmp_path):
    path = stored(made(optimizer=lambda net: torch.optim.SGD(net.parameters(), 0.1)), tmp_path / "x.ckpt")
    loaded = DiffusionModule.load_from_checkpoint(path)
    assert trainer().validate(loaded, spiral(), verbose=False)
    with pytest.raises(UserError, match="optimizer is an object of"):
        trainer().fit(loaded, spiral())


@pytest.mark.parametrize(
    "data", [pytest.param(spiral, marks=pytest.mark.slow, id="data module"), pytest.param(pairs, id="plain loader")]
)
def test_the_callbacks_draw_and_measure_in_a_script(data, trainer, tmp_path):
    data = data()
    known = facts_of(data)
    pictures = [kind(tmp_path, facts=known) for kind in (ForwardProcess, Trajectory, Field)]
    quality = VectorQuality(["wasserstein"]).attach(known)
    pictures += [LiveQuality(quality, max_share=None), FinalSamples(tmp_path, quality, points=50, facts=known)]
    fit = trainer(callbacks=pictures, logger=False)
    fit.fit(made(), data, **({} if isinstance(data, Spiral) else {"val_dataloaders": data}))
    assert {path.name for path in (tmp_path / "pictures").iterdir()} > {
        "field.png",
        "samples.png",
        "forward_process.png",
    }
    assert "quality/wasserstein" in fit.callback_metrics


def test_a_callback_finds_the_data_module_and_asks_for_what_it_cannot_find(trainer, tmp_path):
    fit = trainer(callbacks=[ForwardProcess(tmp_path)], logger=False, max_steps=1)
    fit.fit(made(), spiral())
    assert (tmp_path / "pictures" / "forward_process.png").exists()
    with pytest.raises(UserError, match=r"pass ForwardProcess\(\.\.\., facts=litdiffusion\.data\.facts_of\(loader\)"):
        trainer(callbacks=[ForwardProcess(tmp_path)], logger=False).fit(made(), pairs())
