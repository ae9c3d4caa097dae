"""A run from another run's checkpoint: moments and counts are restored, every setting is that of its own config."""

import csv
import warnings

import pytest
import torch
from conftest import BARE_RUN, composed
from lightning.pytorch.plugins import MixedPrecision
from omegaconf import OmegaConf, open_dict

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.config.optimizer import make_lr_schedule
from litdiffusion.errors import UserError
from litdiffusion.training.position import Position
from litdiffusion.training.settings import settings_of, take_settings, take_settings_of_trainer

RATES = "torch.optim.lr_scheduler"
TINY_RUN = [*BARE_RUN, "logger=csv", "trainer.log_every_n_steps=1", "model.hidden=16", "data.batch_size=32"]
TINY_RUN += ["data.size=96", "data.val_size=8", "callbacks.best=null", "schedule.steps=50", "data=moons"]


def run(folder, *words, steps: int, start=None, node=None):
    """Trains to ``steps`` steps; ``node`` replaces lr_schedule. Returns the checkpoint and its content."""
    more = [] if start is None else [f"ckpt_path={start}"]
    cfg = composed(*TINY_RUN, f"trainer.max_steps={steps}", "trainer.val_check_interval=3", *more, *words)
    if node is not None:
        with open_dict(cfg):
            cfg.lr_schedule = OmegaConf.create(node)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(cfg, Run(folder))
    path = folder / "checkpoints" / "last.ckpt"
    return path, torch.load(path, weights_only=True)


def rates(folder) -> dict[int, float]:
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/learning_rate")]
    return {int(row["step"]): float(row["train/learning_rate"]) for row in rows}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("first") / "run", "lr_schedule=constant", steps=4)


def test_weight_decay_and_betas_are_those_of_the_config_and_moments_are_restored(first, tmp_path):
    path, before = first
    words = ["lr_schedule=constant", "lr_schedule.warmup_steps=0", "optimizer.lr=1e-3"]
    decays = {}
    for decay in ("0.0", "0.5"):
        _, decays[decay] = run(tmp_path / decay, *words, f"optimizer.weight_decay={decay}", steps=5, start=path)
    for name, weight in before["state_dict"].items():
        if name.startswith("denoiser.net") and weight.is_floating_point():
            with_decay, without = (decays[decay]["state_dict"][name] for decay in ("0.5", "0.0"))
            torch.testing.assert_close(with_decay, without - 1e-3 * 0.5 * weight, rtol=0, atol=1e-7)
    _, after = run(tmp_path / "b", *words, "optimizer.betas=[0.5,0.9]", "optimizer.fused=false", steps=5, start=path)
    (group,) = after["optimizer_states"][0]["param_groups"]
    assert (tuple(group["betas"]), group["fused"], group["weight_decay"]) == ((0.5, 0.9), False, 0.0)
    moments, fresh = (content["optimizer_states"][0]["state"] for content in (after, decays["0.0"]))
    old = before["optimizer_states"][0]["state"]
    assert {float(state["step"]) for state in moments.values()} == {5.0}
    for k, state in moments.items():  # with the same gradient g: m' = 0.5 m + 0.5 g, and 0.9 m + 0.1 g
        gradient = (fresh[k]["exp_avg"] - 0.9 * old[k]["exp_avg"]) / 0.1
        torch.testing.assert_close(state["exp_avg"], 0.5 * old[k]["exp_avg"] + 0.5 * gradient, rtol=1e-3, atol=1e-6)


def test_an_equal_config_from_a_checkpoint_is_the_run_that_went_on(first, tmp_path):
    path, _ = first
    _, whole = run(tmp_path / "whole", "lr_schedule=constant", steps=7)
    _, parts = run(tmp_path / "parts", "lr_schedule=constant", steps=7, start=path)
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, parts["state_dict"][name]), name


def exponential(gamma):
    return {"_target_": f"{RATES}.ExponentialLR", "gamma": gamma}


def one_cycle(max_lr):
    return {"_target_": f"{RATES}.OneCycleLR", "max_lr": max_lr}


def by_factor(factor):
    return {"_target_": "test_settings.multiplied", "factor": factor}


STEP = {"_target_": f"{RATES}.StepLR", "step_size": 2, "gamma": 0.5}
BY_EPOCH = {"scheduler": STEP, "interval": "epoch"}
CHAIN = {"_target_": "test_settings.chained", "gamma": 0.9}
SEQUENCE = {"_target_": "test_settings.in_sequence", "gamma": 0.9}
SCHEDULES = {
    "step": (STEP, {**STEP, "gamma": 0.1, "step_size": 3}),
    "exponential": (exponential(0.9), exponential(0.5)),
    "one cycle": (one_cycle(0.01), one_cycle(0.02)),
    "multiplicative": (by_factor(0.9), by_factor(0.5)),
    "chain": (CHAIN, {**CHAIN, "gamma": 0.5}),
    "sequence": (SEQUENCE, {**SEQUENCE, "gamma": 0.5, "milestone": 3}),
    "another class": (STEP, exponential(0.5)),
    "none before": (None, STEP),
    "none now": (STEP, None),
    "equal": (SEQUENCE, SEQUENCE),
}
RUNS = {
    "rate": (["optimizer.lr=1e-2"], None, None),
    "cosine's end": (["lr_schedule=cosine", "lr_schedule.final=0.5", "lr_schedule.warmup_steps=2"], None, None),
    "by epoch": ([], BY_EPOCH, {**BY_EPOCH, "scheduler": {**STEP, "step_size": 1}}),
}


def chained(optimizer, gamma: float):
    parts = [torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, 3)]
    return torch.optim.lr_scheduler.ChainedScheduler(
        [*parts, torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)], optimizer
    )


def in_sequence(optimizer, gamma: float, milestone: int = 2):
    parts = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 2)]
    parts.append(torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma))
    return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, [milestone])


def multiplied(optimizer, factor: float):
    return torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda step: factor)


def parts(node, lr: float = 1e-3):
    """An optimizer of one weight and its schedule, as a module makes them."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr)
    schedule = node and {"scheduler": make_lr_schedule(OmegaConf.create(node), optimizer, 8), "interval": "step"}
    return optimizer, schedule


def moved(made, count: int) -> list[float]:
    """The rates of so many steps."""
    found = []
    for _ in range(count):
        found.append(made[0].param_groups[0]["lr"])
        made[0].step()
        if made[1]:
            made[1]["scheduler"].step()
    return found


@pytest.mark.parametrize("lr", [1e-3, 5e-3])
@pytest.mark.parametrize(("then", "now"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_gives_the_rates_of_the_new_settings_from_the_checkpoint_on(then, now, lr):
    old = parts(then)
    content = {"progress": {"settings": settings_of(old, 8, then)}}
    moved(old, 4)
    content |= {"optimizer_states": [old[0].state_dict()]}
    content["lr_schedulers"] = [old[1]["scheduler"].state_dict()] if then else []
    take_settings(content, lambda: parts(now, lr), settings_of(parts(now, lr), 8, now), Position(4, 0, 4, 4))
    new = parts(now, lr)
    new[0].load_state_dict(content["optimizer_states"][0])
    if now:
        new[1]["scheduler"].load_state_dict(content["lr_schedulers"][0])
    assert moved(new, 4) == moved(parts(now, lr), 8)[4:]


@pytest.mark.parametrize(("words", "then", "now"), RUNS.values(), ids=RUNS)
def test_every_rate_after_the_checkpoint_is_that_of_a_whole_run_of_the_new_config(words, then, now, tmp_path):
    trusted = ["trusted=[test_settings]", "lr_schedule=constant", "lr_schedule.warmup_steps=3"]
    path, _ = run(tmp_path / "then", *trusted, steps=4, node=then)
    run(tmp_path / "now", *trusted, *words, steps=8, start=path, node=now)
    run(tmp_path / "whole", *trusted, *words, steps=8, node=now)
    found, expected = rates(tmp_path / "now"), rates(tmp_path / "whole")
    assert sorted(found) == [4, 5, 6, 7]
    assert found == {step: expected[step] for step in found}


@pytest.mark.parametrize("node", [None, one_cycle(0.01)], ids=["cosine", "cycle"])
def test_a_run_that_is_made_longer_has_the_rates_of_the_long_one(node, tmp_path):
    words = ["lr_schedule=cosine", "lr_schedule.warmup_steps=2"]
    run(tmp_path / "run", *words, steps=4, node=node)
    run(tmp_path / "run", *words, steps=8, node=node)
    run(tmp_path / "whole", *words, steps=8, node=node)
    found, expected = rates(tmp_path / "run"), rates(tmp_path / "whole")
    assert [found[step] for step in range(4, 8)] == [expected[step] for step in range(4, 8)]


COUNTS = ("best", "num_bad_epochs", "last_epoch")


def test_a_plateau_keeps_its_counts_and_takes_its_settings(tmp_path):
    def node(**settings):
        scheduler = {"_target_": f"{RATES}.ReduceLROnPlateau", "threshold": 0.9, "patience": 1, **settings}
        return {"scheduler": scheduler, "monitor": "val/loss", "interval": "epoch"}

    path, before = run(tmp_path / "then", steps=6, node=node())
    then = before["lr_schedulers"][0]
    assert then["num_bad_epochs"] > 0
    words = ["optimizer.lr=5e-3"]
    _, after = run(tmp_path / "now", *words, steps=7, start=path, node=node(patience=7, factor=0.3, min_lr=1e-6))
    now = after["lr_schedulers"][0]
    assert (now["patience"], now["factor"], now["min_lrs"]) == (7, 0.3, [1e-6])
    # one more epoch without a better value, which the old patience of 1 would not have borne
    assert [now[key] for key in COUNTS] == [then["best"], then["num_bad_epochs"] + 1, then["last_epoch"] + 1]
    old_rate, new_rate = (x["optimizer_states"][0]["param_groups"][0]["lr"] for x in (before, after))
    assert new_rate == pytest.approx(old_rate * 5)


def test_the_patience_of_early_stopping_is_that_of_the_config(tmp_path):
    stop = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, patience: %d}"
    path, before = run(tmp_path / "then", stop % 50, "lr_schedule=constant", steps=6)
    _, after = run(tmp_path / "now", stop % 70, "lr_schedule=constant", steps=7, start=path)
    (then,), (now,) = (
        [state for key, state in content["callbacks"].items() if "EarlyStopping" in key] for content in (before, after)
    )
    assert (then["patience"], now["patience"]) == (50, 70)
    assert now["wait_count"] >= then["wait_count"]


def test_another_optimizer_starts_without_moments_and_says_so(first, tmp_path):
    cfg = composed(*TINY_RUN, "trainer.max_steps=5", f"ckpt_path={first[0]}", "lr_schedule=constant")
    with open_dict(cfg):
        cfg.optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    with pytest.warns(UserWarning, match=r"SGD starts without moments: those .* of another optimizer, torch.*AdamW"):
        train(cfg, Run(tmp_path / "sgd"))
    content = torch.load(tmp_path / "sgd" / "checkpoints" / "last.ckpt", weights_only=True)
    (group,) = content["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["momentum"]) == (0.1, 0.9)
    assert "betas" not in group


OPTIONS = {
    "Adam amsgrad": ({"_target_": "torch.optim.Adam", "lr": 1e-3}, {"amsgrad": True}, "max_exp_avg_sq"),
    "AdamW amsgrad": ({"_target_": "torch.optim.AdamW", "lr": 1e-3}, {"amsgrad": True}, "max_exp_avg_sq"),
    "RMSprop": (
        {"_target_": "torch.optim.RMSprop", "lr": 1e-3},
        {"centered": True, "momentum": 0.9},
        "grad_avg, momentum_buffer",
    ),
    "SGD": ({"_target_": "torch.optim.SGD", "lr": 1e-3}, {"momentum": 0.9, "nesterov": True}, "momentum_buffer"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_state_that_a_new_option_needs_starts_fresh_and_is_named(name, tmp_path):
    old, more, keys = OPTIONS[name]

    def trained(folder, start=None, steps=2, options=None):
        cfg = composed(
            *TINY_RUN, f"trainer.max_steps={steps}", "lr_schedule=constant", *([f"ckpt_path={start}"] if start else [])
        )
        with open_dict(cfg):
            cfg.optimizer = {**old, **(options or {})}
        train(cfg, Run(folder))
        path = folder / "checkpoints" / "last.ckpt"
        return path, torch.load(path, weights_only=True)["optimizer_states"][0]["state"]

    path, before = trained(tmp_path / "then")
    with pytest.warns(UserWarning, match=rf"starts without {keys}: the checkpoint's optimizer kept none"):
        _, after = trained(tmp_path / "now", path, 3, more)
    assert all(set(keys.split(", ")) <= state.keys() for state in after.values())
    for k, state in before.items():
        if "step" in state:  # the rest is restored
            assert float(after[k]["step"]) == float(state["step"]) + 1 == 3
        if "exp_avg_sq" in state:
            assert torch.equal(after[k]["max_exp_avg_sq"], after[k]["exp_avg_sq"])  # the largest of 0 and this one
        if "grad_avg" in after[k]:  # of one step: 0.01 g, where the average of squares has 0.01 g² more
            added = after[k]["square_avg"] - 0.99 * state["square_avg"]
            torch.testing.assert_close(after[k]["grad_avg"].square(), 0.01 * added, rtol=1e-3, atol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trained(tmp_path / "less", tmp_path / "now" / "checkpoints" / "last.ckpt", 4)  # without them again


class Averaged(torch.optim.NAdam):
    """An optimizer as of another package: ``extra`` keeps an average of each weight, ``strict`` refuses zeros."""

    def __init__(self, weights, extra=False, strict=False):
        super().__init__(weights, lr=0.1)
        self.strict, self.param_groups[0]["extra"] = strict, extra

    def step(self, closure=None):
        (group,) = self.param_groups
        if self.strict and not all(weight.grad.any() for weight in group["params"]):
            raise ZeroDivisionError
        super().step(closure)
        for weight in group["params"] if group["extra"] else ():
            self.state[weight].setdefault("average", weight.detach().clone())


@pytest.mark.parametrize("strict", [False, True])
def test_state_of_an_optimizer_of_another_package_starts_fresh_too_and_the_weights_stay(strict):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    old, _ = made = Averaged([weight]), None
    content = {"progress": {"settings": settings_of(made, 10, None)}, "lr_schedulers": []}
    weight.grad = torch.ones(2)
    old.step()
    kept = weight.detach().clone()
    content["optimizer_states"] = [old.state_dict()]

    def make():
        return Averaged([weight], extra=True, strict=strict), None

    with warnings.catch_warnings(record=True) as lines:
        take_settings(content, make, settings_of(make(), 10, None), Position(1, 0, 1, 1))
    (state,) = content["optimizer_states"][0]["state"].values()
    assert ("average" in state) != strict
    assert ["without average" in str(line.message) for line in lines] == [True] * (not strict)
    assert torch.equal(weight, kept)
    assert torch.equal(weight.grad, torch.ones(2))


def test_counts_that_an_optimizer_keeps_among_its_settings_are_restored():
    """As Prodigy's ``d`` and the schedule-free optimizers' ``k``: they change at every step."""

    def make(decay: float = 0.0):
        weight = torch.nn.Parameter(torch.ones(2))
        return torch.optim.SGD([{"params": [weight], "k": 0}], lr=0.1, weight_decay=decay), None

    old, _ = made = make()
    content = {"progress": {"settings": settings_of(made, 10, None)}, "lr_schedulers": []}
    old.param_groups[0]["k"] = 7
    content["optimizer_states"] = [old.state_dict()]
    take_settings(content, lambda: make(0.5), settings_of(make(0.5), 10, None), Position(7, 0, 7, 7))
    (group,) = content["optimizer_states"][0]["param_groups"]
    assert (group["k"], group["weight_decay"]) == (7, 0.5)


def test_a_checkpoint_without_settings_is_warned_of():
    content = {"progress": {}, "optimizer_states": [parts(STEP)[0].state_dict()], "lr_schedulers": []}
    with pytest.warns(UserWarning, match="does not say how its optimizer was made"):
        take_settings(content, lambda: parts(STEP), settings_of(parts(STEP), 8, STEP), Position(4, 0, 4, 4))


def test_a_loss_scaler_keeps_its_scale_and_takes_its_settings():
    class Trainer:
        callbacks = ()
        precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", growth_interval=5))

    state = {**torch.amp.GradScaler("cpu").state_dict(), "scale": 3.0}
    take_settings_of_trainer({"MixedPrecision": state}, Trainer())
    assert (state["scale"], state["growth_interval"]) == (3.0, 5)


def test_a_schedule_that_has_ended_is_refused_in_one_line(first, tmp_path):
    node = {"_target_": f"{RATES}.OneCycleLR", "max_lr": 0.01, "epochs": 1, "steps_per_epoch": 2}
    with pytest.raises(UserError, match=r"lr_schedule: Tried to step 3 times.*checkpoint is at step 4"):
        run(tmp_path / "run", steps=8, start=first[0], node=node)
