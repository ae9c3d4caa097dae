"""Optimizers, learning rates and precisions of all kinds: each trains, and goes on bit for bit where it stopped."""

import math
import warnings
from pathlib import Path

import pytest
import torch
from conftest import FEW_STATES, QUIET, TINY, TINY_UNET, UNMEASURED, composed
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, open_dict
from torch import nn

from litdiffusion.build import Experiment, Run, build
from litdiffusion.commands.training import train
from litdiffusion.errors import UserError
from litdiffusion.nets import UNet
from litdiffusion.training.ema import EMA
from litdiffusion.training.optimizers import MuonAdamW

HERE = Path(__file__).stem
OPTIM, RATES = "torch.optim", "torch.optim.lr_scheduler"
FEW = ("data.size=64", "data.batch_size=16", "data.val_size=16", "schedule.steps=50")
"""Four batches of points in an epoch."""


def layers_apart(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    """An optimizer of one's own, made for this very net."""
    first, *others = net.net.layers
    groups = [{"params": first.parameters(), "lr": 10 * lr}, {"params": nn.ModuleList(others).parameters()}]
    return torch.optim.SGD(groups, lr, momentum=0.9)


def no_decay(named_parameters, lr: float) -> torch.optim.Optimizer:
    """Likewise, by the names of the weights."""
    biases = [weight for name, weight in named_parameters if name.endswith("bias")]
    others = [weight for name, weight in named_parameters if not name.endswith("bias")]
    return torch.optim.AdamW([{"params": biases, "weight_decay": 0.0}, {"params": others}], lr)


def config(*overrides: str, optimizer: dict | None = None, lr_schedule: dict | None = None) -> DictConfig:
    """A tiny run's config with these nodes in place of its own."""
    cfg = composed(*TINY, *FEW, *QUIET, "trainer.max_steps=12", "model.hidden=8", f"trusted=[{HERE}]", *overrides)
    with open_dict(cfg):
        cfg.optimizer = cfg.optimizer if optimizer is None else optimizer
        cfg.lr_schedule = cfg.lr_schedule if lr_schedule is None else lr_schedule
    return cfg


def fitted(cfg: DictConfig, folder: Path, ckpt_path: str | None = None) -> Experiment:
    """Trained from the start, with a checkpoint of every step, or from one of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experiment = build(cfg, Run(folder))
        saver = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        experiment.trainer.callbacks += [] if ckpt_path else [saver]
        experiment.trainer.fit(experiment.module, experiment.data, ckpt_path=ckpt_path, weights_only=True)
    return experiment


def assert_resumes_exactly(cfg: DictConfig, folder: Path, steps: tuple[int, ...] = (5, 8)) -> Experiment:
    """In the middle of an epoch and between two: weights, average, optimizer and rates."""
    whole = fitted(cfg.copy(), folder / "whole")
    for step in steps:
        torch.manual_seed(step)
        resumed = fitted(cfg.copy(), folder / "resumed", str(folder / "whole" / f"step={step}.ckpt"))
        assert resumed.trainer.global_step == whole.trainer.global_step == 12
        assert_same(whole.module.state_dict(), resumed.module.state_dict())
        assert_same(*(run.trainer.optimizers[0].state_dict() for run in (whole, resumed)))
        rates = [
            [config.scheduler.state_dict() for config in run.trainer.lr_scheduler_configs] for run in (whole, resumed)
        ]
        assert_same(*rates)
    return whole


def assert_same(first, second) -> None:
    """Equal trees of tensors and plain values."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        [assert_same(value, second[key]) for key, value in first.items()]
    elif isinstance(first, list | tuple):
        [assert_same(a, b) for a, b in zip(first, second, strict=True)]
    else:
        assert first == second or callable(first) or first is second


OPTIMIZERS = {
    "sgd": {"_target_": f"{OPTIM}.SGD", "lr": 1e-2, "momentum": 0.9},
    "nadam": {"_target_": f"{OPTIM}.NAdam"},
    "lbfgs": {"_target_": f"{OPTIM}.LBFGS", "lr": 0.1, "max_iter": 3},
    "of the net": {"_target_": f"{HERE}.layers_apart", "lr": 1e-3},
    "of named parameters": {"_target_": f"{HERE}.no_decay", "lr": 1e-3},
    "muon": {"_target_": "litdiffusion.training.optimizers.MuonAdamW"},
}


@pytest.mark.parametrize("node", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_any_optimizer_trains_and_resumes_exactly(node, tmp_path):
    whole = assert_resumes_exactly(config(optimizer=node), tmp_path)
    start = build(config(optimizer=node), Run(tmp_path)).module.denoiser.state_dict()
    assert all(not torch.equal(value, start[name]) for name, value in whole.module.denoiser.state_dict().items())


SCHEDULES = {
    "one cycle": {"_target_": f"{RATES}.OneCycleLR", "max_lr": 0.01},
    "one cycle in epochs": {"_target_": f"{RATES}.OneCycleLR", "max_lr": 0.01, "epochs": 3, "steps_per_epoch": 4},
    "cosine annealing": {"_target_": f"{RATES}.CosineAnnealingLR"},
    "linear": {"_target_": f"{RATES}.LinearLR", "total_iters": 6},
    "steps of epochs": {
        "scheduler": {"_target_": f"{RATES}.StepLR", "step_size": 1, "gamma": 0.5},
        "interval": "epoch",
    },
    "plateau": {
        "scheduler": {"_target_": f"{RATES}.ReduceLROnPlateau", "patience": 0, "threshold": 0.5},
        "monitor": "val/loss",
        "interval": "epoch",
    },
    "ours": {"_target_": "litdiffusion.training.lr.WarmupCosine", "warmup_steps": 3},
    "constant": {"_target_": "litdiffusion.training.lr.WarmupConstant", "warmup_steps": 8},
}
UNLIKE = ("one cycle", "plateau", "ours")
EPOCHS = ("trainer.check_val_every_n_epoch=1", "trainer.max_epochs=3", "trainer.max_steps=-1")


@pytest.mark.parametrize("length", [(), EPOCHS], ids=["steps", "epochs"])
@pytest.mark.parametrize(
    "node",
    [pytest.param(node, id=name, marks=[pytest.mark.slow] * (name not in UNLIKE)) for name, node in SCHEDULES.items()],
)
def test_any_schedule_moves_the_rate_and_resumes_exactly(node, length, tmp_path):
    validated = () if length else ("trainer.val_check_interval=4",)
    # Between an epoch's last batch and its validation no checkpoint can know what a plateau's schedule will see.
    steps = (5, 9) if "monitor" in node else (5, 8)
    assert_resumes_exactly(config(*length, *validated, lr_schedule=node), tmp_path, steps)


def rates(cfg: DictConfig, folder: Path) -> list[float]:
    """The rate of every step."""
    experiment, found = build(cfg, Run(folder)), []
    honest = experiment.module.optimizer_step

    def noted(epoch, batch_idx, optimizer, closure):
        found.append(optimizer.param_groups[0]["lr"])
        honest(epoch, batch_idx, optimizer, closure)

    experiment.module.optimizer_step = noted
    experiment.trainer.fit(experiment.module, experiment.data)
    return found


def test_rates_are_those_of_the_whole_run(tmp_path):
    annealed = rates(config(*EPOCHS, lr_schedule=SCHEDULES["cosine annealing"]), tmp_path)
    assert annealed == pytest.approx([1e-3 * (1 + math.cos(math.pi * k / 12)) / 2 for k in range(12)])
    by_epoch = rates(config(lr_schedule=SCHEDULES["steps of epochs"]), tmp_path)
    assert by_epoch == pytest.approx([1e-3] * 4 + [5e-4] * 4 + [2.5e-4] * 4)
    cycle = rates(config(lr_schedule=SCHEDULES["one cycle"]), tmp_path)
    assert (len(cycle), cycle.index(max(cycle))) == (12, 3)  # 30 % of 12 steps rise
    assert cycle[-1] < cycle[0] / 1e3


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        pytest.param(
            {"optimizer": {"_target_": f"{OPTIM}.Muon"}},
            r"optimizer: Muon only supports 2D parameters",
            marks=pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="came with torch 2.9"),
        ),
        ({"optimizer": {"_target_": f"{OPTIM}.SparseAdam"}}, r"optimizer: SparseAdam does not support dense"),
        ({"lr_schedule": SCHEDULES["plateau"]["scheduler"]}, r"ReduceLROnPlateau needs a number to monitor.*monitor"),
        ({"lr_schedule": {"scheduler": {"_target_": f"{RATES}.CosineAnnealingLR"}}}, r"lr_schedule.*T_max"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_training(nodes, message, tmp_path):
    cfg = config(**nodes)
    with pytest.raises(UserError, match=message) as error:
        build(cfg, Run(tmp_path))
    assert "\n" not in str(error.value)


def test_muon_takes_the_hidden_matrices_and_shares_one_state(tmp_path):
    net = build(config("model.layers=4"), Run(tmp_path)).module.denoiser
    optimizer = MuonAdamW(net, lr=0.1)
    hidden, others = optimizer.param_groups
    assert [tuple(weight.shape) for weight in hidden["params"]] == [(8, 8)] * 3
    assert {id(w) for w in [*hidden["params"], *others["params"]]} == {id(w) for w in net.parameters()}
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    before = [weight.clone() for weight in net.parameters()]
    assert optimizer.step(lambda: torch.tensor(3.0)) == 3.0
    moved = [(a - b).abs().mean() for a, b in zip(before, net.parameters(), strict=True)]
    assert all(size > 0.001 for size in moved)
    assert [sorted(optimizer.state[group["params"][0]]) for group in (hidden, others)] == [
        ["momentum_buffer"],
        ["exp_avg", "exp_avg_sq", "step"],
    ]
    other = MuonAdamW(net, lr=0.5)
    other.load_state_dict(optimizer.state_dict())
    assert [part.param_groups[0]["lr"] for part in other.parts] == [0.1, 0.1]
    assert_same(other.state_dict(), optimizer.state_dict())
    with pytest.raises(UserError, match="is for hidden matrices, and this net has 1 linear layers and convolutions"):
        MuonAdamW(nn.Linear(2, 2))


def test_muon_takes_the_kernels_of_a_unet_too():
    net = UNet((1, 8, 8), (0.0, 1.0), [8], blocks=1, embedding_dim=8)
    hidden, _ = MuonAdamW(net).param_groups
    assert sorted(weight.ndim for weight in hidden["params"]) == [2, 2, 4, 4, 4, 4, 4]
    assert not {id(net.last.weight), id(net.embedding[0].weight)} & {id(weight) for weight in hidden["params"]}


PRECISIONS = [("unet", "bf16-mixed"), ("mlp", "bf16-true"), ("mlp", 32)]
MORE_PRECISIONS = [
    ("mlp", "64-true"),
    ("mlp", "32"),
    ("mlp", "bf16-mixed"),
    ("unet", "64-true"),
    ("unet", "bf16-true"),
    ("unet", "32"),
]


@pytest.mark.parametrize(
    ("net", "precision"), [*PRECISIONS, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_PRECISIONS)]
)
def test_every_precision_trains_samples_and_draws(net, precision, tmp_path):
    net = TINY_UNET if net == "unet" else ()
    small = ["callbacks.final_samples.points=50", "callbacks.trajectory.points=50", "callbacks.progress_bar=null"]
    small += ["callbacks.final_samples.images=4", "callbacks.trajectory.chains=2", "data.val_size=8", *FEW_STATES]
    small += ["+callbacks.field.levels=[0.5]"]
    few = ["schedule.steps=25", *(FEW[:2] if not net else ())]
    cfg = composed(*TINY, *few, *small, *UNMEASURED, "metrics=none", "trainer.max_steps=3", *net)
    cfg.trainer.precision = precision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(cfg.copy(), Run(tmp_path / "run"))
        experiment = build(cfg, Run(tmp_path / "again"))
    assert (tmp_path / "run" / "pictures" / "samples.png").exists()
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    samples = experiment.trainer.predict(experiment.module, experiment.data, ckpt_path=str(path))
    assert samples[0].dtype == torch.float32
    assert all(part.isfinite().all() for part in samples)
    assert experiment.module.draw(2, torch.randn_like).dtype == torch.float32  # also outside the trainer


def test_live_measures_run_in_half_precision(tmp_path):
    cfg = composed(*TINY, *FEW, "callbacks.progress_bar=null", "callbacks.live_quality.samples=50", "times=loss_aware")
    cfg.trainer.precision = "bf16-true"
    for name in ("trajectory", "final_samples", "forward_process"):
        cfg.callbacks[name] = None
    train(cfg, Run(tmp_path))
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert "quality/wasserstein" in header
    assert "likelihood/nats" in header


def test_the_average_stays_precise_where_weights_are_not():
    """Steps of a thousandth are far below what bfloat16 resolves."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    average = EMA(net, 0.999)
    both = nn.ModuleList([net, average]).to(torch.bfloat16)
    nn.init.zeros_(net.weight)
    for step in range(10_000, 10_100):
        average.update(net, step)
    assert [weight.dtype for weight in both.parameters()] == [torch.bfloat16, torch.float32]
    assert average.model.weight.item() == pytest.approx(0.999**100, rel=1e-4)
    assert average.double().model.weight.dtype == torch.float64
