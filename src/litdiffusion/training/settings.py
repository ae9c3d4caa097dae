"""A checkpoint restores moments and counts; every setting of optimizer and schedules is that of the config.

torch keeps both in one state: ``load_state_dict`` of an optimizer brings back weight decay and betas with the moments,
that of a scheduler its patience and length with its counts. So each checkpoint also holds the state as it was when the
parts were made. What is another value in the parts of today's config is a setting that was changed, and is taken from
them. With equal settings nothing is changed, so a resumed run stays equal bit for bit.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from litdiffusion.errors import UserError, first_line
from litdiffusion.training.position import Position

Made = tuple[Optimizer, Mapping[str, Any] | None]
"""An optimizer, and Lightning's dictionary with its ``scheduler``; None without a schedule."""


def settings_of(made: Made, steps: float, typed: Any) -> dict[str, Any]:
    """The state of parts that were just made, for a checkpoint.

    Args:
        made: optimizer and schedule.
        steps: length of the run, which schedules may depend on.
        typed: the schedule in the config, for settings that are in no state (the functions of ``LambdaLR``).
    """
    optimizer, schedule = made
    groups = [_without_weights(group) for group in optimizer.state_dict()["param_groups"]]
    found = {"optimizer": _name(optimizer), "groups": groups, "schedule": None}
    if schedule is not None:
        place = {key: schedule.get(key) for key in ("interval", "frequency", "monitor")}
        found["schedule"] = {"class": _name(schedule["scheduler"]), "typed": typed, "steps": steps, **place}
        found["schedule"]["state"] = schedule["scheduler"].state_dict()
    return copy.deepcopy(found)


def take_settings(checkpoint: dict[str, Any], make: Callable[[], Made], now: dict[str, Any], at: Position) -> None:
    """Replaces every setting in a checkpoint's states by that of today's parts; changes nothing where none differs.

    What the optimizer keeps for each weight, and did not keep under the checkpoint's settings (``max_exp_avg_sq`` of
    ``amsgrad``, the buffer of a momentum), starts fresh, and a line says so.

    A schedule whose settings changed, other than one that follows a metric, is moved on to the checkpoint's step, so
    that the rate is what this config gives there.

    Args:
        checkpoint: content of the file, with ``progress.settings``; is changed.
        make: makes the parts of today's config once more.
        now: their settings, see `settings_of`.
        at: position of the checkpoint.
    """
    then = checkpoint.get("progress", {}).get("settings")
    if not checkpoint.get("optimizer_states"):
        return
    if then is None:
        warnings.warn("the checkpoint does not say how its optimizer was made, so all settings of optimizer and "
                      "lr_schedule come from it, also those that this config changes", stacklevel=2)  # fmt: skip
        return
    state = checkpoint["optimizer_states"][0]
    if then["optimizer"] != now["optimizer"] or len(then["groups"]) != len(now["groups"]):
        warnings.warn(f"{now['optimizer']} starts without moments: those in the checkpoint are of another optimizer"
                      f", {then['optimizer']}", stacklevel=2)  # fmt: skip
        state = checkpoint["optimizer_states"][0] = make()[0].state_dict()
        then = {**then, "groups": now["groups"]}
    elif at.step and not _equal(then["groups"], now["groups"]):
        _add_fresh_state(state["state"], make()[0])
    rates = [group["lr"] for group in state["param_groups"]]
    for group, old, new in zip(state["param_groups"], then["groups"], now["groups"], strict=True):
        _take(group, old, new)
    _take_schedule(checkpoint, make, then, now, at, rates)
    checkpoint["progress"]["settings"] = now


def take_settings_of_trainer(checkpoint: dict[str, Any], trainer: L.Trainer) -> None:
    """The same for Lightning's parts that store settings among their counts: early stopping, and a loss scaler."""
    for callback in trainer.callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if isinstance(callback, EarlyStopping) and state:
            state["patience"] = callback.patience
    plugin = trainer.precision_plugin
    state, scaler = checkpoint.get(type(plugin).__qualname__), getattr(plugin, "scaler", None)
    if state and scaler is not None:
        state["growth_factor"], state["backoff_factor"] = scaler.get_growth_factor(), scaler.get_backoff_factor()
        state["growth_interval"] = scaler.get_growth_interval()


def _add_fresh_state(states: dict[Any, dict[str, Any]], optimizer: Optimizer) -> None:
    """Adds what this optimizer keeps for a weight and none of the stored ``states`` has.

    A weight without any state is left alone, because an optimizer begins it at the weight's first step.
    """
    fresh, stored = _fresh_state(optimizer), {key for state in states.values() for key in state}
    new = sorted({key for state in fresh.values() for key in state} - stored)
    if not new:
        return
    for weight, state in states.items():
        if state:
            state.update({key: fresh[weight][key] for key in new if key in fresh[weight]})
    warnings.warn(f"{_name(optimizer)} starts without {', '.join(new)}: the checkpoint's optimizer kept none, as other "
                  f"options were set", stacklevel=3)  # fmt: skip


def _fresh_state(optimizer: Optimizer) -> dict[Any, dict[str, Any]]:
    """The state of each weight after a step without gradient, of zeros in the place of the weights; spends it."""
    for group in optimizer.param_groups:
        group["params"] = [torch.zeros_like(weight).requires_grad_() for weight in group["params"]]
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    try:
        optimizer.step(lambda: torch.zeros(()))
    except Exception:  # an optimizer of another package may refuse zeros in any way
        return {}
    return optimizer.state_dict()["state"]


def _take_schedule(
    checkpoint: dict[str, Any],
    make: Callable[[], Made],
    then: dict[str, Any],
    now: dict[str, Any],
    at: Position,
    rates: list[Any],
) -> None:
    """The part of `take_settings` for the schedule; ``rates`` are the checkpoint's own rates of all groups."""
    old, new = then["schedule"], now["schedule"]
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    if _equal(old, new):
        return
    if new is None:
        checkpoint["lr_schedulers"] = []
        for group, fresh in zip(groups, now["groups"], strict=True):
            group.update(fresh)
        return
    same_class = old is not None and old["class"] == new["class"]
    scheduler = make()[1]["scheduler"]
    if not isinstance(scheduler, ReduceLROnPlateau):
        same_place = same_class and all(old[key] == new[key] for key in ("interval", "frequency"))
        count = checkpoint["lr_schedulers"][0].get("last_epoch") if same_place else None
        checkpoint["lr_schedulers"] = [_moved_on(make, groups, _steps_at(at, new) if count is None else count)]
    elif same_class:
        _take(checkpoint["lr_schedulers"][0], old["state"], new["state"])
        for group, rate, before, after in zip(groups, rates, then["groups"], now["groups"], strict=True):
            group["lr"] = rate if _equal(before["lr"], after["lr"]) else rate * after["lr"] / before["lr"]
    else:
        checkpoint["lr_schedulers"] = [scheduler.state_dict()]
        for group, fresh in zip(groups, now["groups"], strict=True):
            group["lr"] = fresh["lr"]


def _moved_on(make: Callable[[], Made], groups: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """The state of a new schedule after ``count`` steps; puts the values that it gives into the ``groups``."""
    optimizer, schedule = make()
    before = [dict(group) for group in optimizer.param_groups]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects a step of the optimizer before that of the schedule
            for _ in range(count):
                schedule["scheduler"].step()
    except ValueError as error:  # e.g. OneCycleLR after its last step
        raise UserError(f"lr_schedule: {first_line(error)} (the checkpoint is at step {count})") from error
    for group, start, end in zip(groups, before, optimizer.param_groups, strict=True):
        moved = {key for key in end if key != "params" and not _equal(start[key], end[key])} | {"lr"}
        group.update({key: end[key] for key in moved})
    return schedule["scheduler"].state_dict()


def _steps_at(at: Position, schedule: Mapping[str, Any]) -> int:
    """How often a schedule has moved at a position, by its interval and frequency."""
    count = at.step if schedule["interval"] == "step" else at.epoch + at.last
    return count // (schedule["frequency"] or 1)


def _take(state: Any, old: Any, new: Any) -> Any:
    """``state`` with the values of ``new`` wherever they differ from ``old``; dictionaries are changed in place."""
    if isinstance(state, dict) and isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            if key not in new:
                state.pop(key, None)
            else:
                state[key] = _take(state.get(key), old.get(key), new[key])
        return state
    return state if _equal(old, new) else new


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a.cpu(), b.cpu())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


def _without_weights(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _name(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
