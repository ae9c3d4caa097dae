"""Whether two configs describe the same run, or the same model. Imports no torch."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from litdiffusion.config.keys import FROM_DATA, Use, decides, keys_for
from litdiffusion.config.public import digest
from litdiffusion.config.secrets import masked
from litdiffusion.errors import UserError, listed
from litdiffusion.runs.record import read_record

if TYPE_CHECKING:
    from litdiffusion.training import DiffusionModule

Action = Literal["fresh", "resume", "complete"]


def action_for(folder: Path, config: dict[str, Any], texts: Mapping[str, str] | None = None) -> Action:
    """What a command with ``config`` does in ``folder``: start, resume, or nothing because the run is complete.

    A run that failed before its first step starts again, with any config. A complete run is resumed if ``config``
    makes it longer. ``texts`` are the digests of the config's texts from the environment.

    Raises:
        UserError: ``folder`` holds a run of another config; the message has a line for each difference.
    """
    record = read_record(folder)
    if record is None or record.starts_afresh:
        return "fresh"
    if lines := changes(record.config, config, record.environment, texts or {}):
        raise UserError(
            f"{folder} holds a run of another config:\n"
            + "".join(f"  {line}\n" for line in lines)
            + "take the same overrides to resume it, resume=false to start a new run beside it, or another name"
        )
    return "complete" if record.status == "complete" and not longer(record.config, config) else "resume"


def changes(
    then: dict[str, Any],
    now: dict[str, Any],
    texts_then: Mapping[str, str] | None = None,
    texts_now: Mapping[str, str] | None = None,
) -> list[str]:
    """``key: value then -> value now`` for every difference that identifies another run (`Use.RUN`)."""
    found = changed_keys(then, now, texts_then, texts_now, Use.RUN)
    keys = {*(texts_then or ()), *(texts_now or ())}
    return [
        f"{key}: another text in the environment" if key in keys else f"{key}: {_short(old)} -> {_short(new)}"
        for key, old, new in found
    ]


def changed_keys(
    then: dict[str, Any],
    now: dict[str, Any],
    texts_then: Mapping[str, str] | None,
    texts_now: Mapping[str, str] | None,
    use: Use,
) -> list[tuple[str, Any, Any]]:
    """(dotted key, value then, value now) for every difference that decides ``use``.

    Another secret is no difference. A text from the environment is compared by its digest, also with a typed text.
    """
    texts_then, texts_now = texts_then or {}, texts_now or {}
    keys = texts_then.keys() | texts_now.keys()
    old_config, new_config = (
        _comparable(config, keys, texts) for config, texts in ((then, texts_then), (now, texts_now))
    )
    return [change for change in differences(old_config, new_config) if decides(change[0], use)]


def _comparable(node: Any, keys: Collection[str], texts: Mapping[str, str]) -> dict[str, Any]:
    """A config with masked secrets, and with digests at ``keys``."""

    def replaced(value: Any, path: str) -> Any:
        if path in keys:
            return texts.get(path) or (digest(path, value) if isinstance(value, str) else value)
        if isinstance(value, dict):
            return {key: replaced(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
        if isinstance(value, list):
            return [replaced(item, f"{path}.{i}") for i, item in enumerate(value)]
        return value

    return replaced(masked(node, references=True), "")


def longer(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the config ``now`` sets more steps, epochs or time than the config ``then``."""
    return any(new > old for new, old in zip(_lengths(now), _lengths(then), strict=True))


def same_length(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two configs set as many steps, epochs and time."""
    return _lengths(now) == _lengths(then)


def _lengths(config: dict[str, Any]) -> list[float]:
    """Each limit of `Use.LENGTH` as a number (time in seconds); inf without a limit."""
    trainer = config.get("trainer", {})
    return [_limit(key, trainer.get(key.removeprefix("trainer."))) for key in keys_for(Use.LENGTH)]


def _limit(key: str, value: Any) -> float:
    """A limit as Lightning takes it: a number, -1 or null for none, ``DD:HH:MM:SS``, or arguments of a timedelta."""
    if value is None or value == -1:
        return math.inf
    try:
        if isinstance(value, str):
            value = dict(zip(("days", "hours", "minutes", "seconds"), map(int, value.split(":")), strict=True))
        return timedelta(**value).total_seconds() if isinstance(value, dict) else float(value)
    except (ValueError, TypeError) as error:
        allowed = "DD:HH:MM:SS, such as 00:02:30:00" if key == "trainer.max_time" else "a number, or -1 for no limit"
        raise UserError(f"{key} must be {allowed}, got {value!r}") from error


def check_fits(content: dict[str, Any], module: "DiffusionModule", path: str | Path, use: Use = Use.MODEL) -> None:
    """Refuses the checkpoint at ``path`` if it belongs to another model, or run, than ``module``.

    A key that only one of the two configs has is no difference, since a script may build a module without a config.

    Args:
        content: content of the checkpoint, see `read_checkpoint`.
        module: module that will load the checkpoint.
        path: path of the checkpoint, for the message.
        use: `Use.RUN` for a checkpoint in the run's own folder, `Use.MODEL` for one that ``ckpt_path`` names.

    Raises:
        UserError: a key that decides ``use`` differs, or the names or shapes of the weights do, or, for ``Use.MODEL``,
            the names of the classes.
    """
    if use is Use.MODEL:
        names = (
            list(description.get("class_names", ())) for description in (content["litdiffusion"], module.description)
        )
        check_classes(*names, path, "give data of these classes, or train a new model without ckpt_path")
    for where, have, need, measured in _compared(content, module, use):
        if not measured:
            remedy = "start with the overrides it was trained with"
            own = f"{remedy}, or name the checkpoint by ckpt_path in a new run"
            raise UserError(
                f"{path} was trained with {where}={have}, this run has {where}={need}; "
                f"{own if use is Use.RUN else remedy}"
            )
    _check_weights(_shapes(content["state_dict"]), _shapes(module.state_dict()), path)


def measured_anew(content: dict[str, Any], module: "DiffusionModule") -> list[str]:
    """``key: value then -> value now`` for the numbers of the model that ``module`` has from other data than the file.

    They are the run's own, not the checkpoint's. The weights have learned standardised items and levels in units of the
    data's deviation. Constants of the new data give them just such items again, whatever the units of a table; those of
    the old data would not. Who wants the old ones types them (``codec.mean=...``).
    """
    compared = _compared(content, module, Use.MODEL)
    return [f"{where}: {_short(have)} -> {_short(need)}" for where, have, need, measured in compared if measured]


def _compared(content: dict[str, Any], module: "DiffusionModule", use: Use) -> Iterator[tuple[str, Any, Any, bool]]:
    """(dotted key, value of the checkpoint, of ``module``, whether a model's number measured on both runs' data).

    Only differences that decide ``use`` are listed.
    """
    configs = masked(content["litdiffusion"].get("config", {})), masked(module.description.get("config", {}))
    derived = [config.get("derived", {}) for config in configs]
    then, now = (_without_folder(config, part.get("run_dir")) for config, part in zip(configs, derived, strict=True))
    common = [key for key in now if key in then]
    for key in sorted(common, key=lambda key: isinstance(now[key], dict)):  # settings first: parts repeat them
        for where, have, need in differences(then[key], now[key], key):
            if decides(where, use):
                values = [[part.get(name) for name in FROM_DATA] for part in derived]
                measured = any(pair == (have, need) for pair in zip(*values, strict=True))
                yield where, have, need, measured and use is Use.MODEL


def check_classes(then: Sequence[str], now: Sequence[str], path: str | Path, remedy: str) -> None:
    """Refuses classes of other names than the weights at ``path`` have learned, or of the same in another order.

    The weights know a class by its number alone. Classes without names, on either side, cannot be compared.
    """
    if then and now and list(then) != list(now):
        pairs = enumerate(zip_longest(then, now, fillvalue="none"))
        k, (old, new) = next((k, pair) for k, pair in pairs if pair[0] != pair[1])
        raise UserError(
            f"{path} was trained with the classes {listed(then)}, this run has {listed(now)} (class {k} was {old}, is "
            f"{new}); {remedy}"
        )


def differences(then: Any, now: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value then, value now) wherever two plain configs differ.

    A key that only ``now`` has counts as equal if it is switched off (null, false, 0 or empty).
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            if key in then or now[key]:
                nested = key not in then and isinstance(now[key], dict)  # its own values may all be switched off
                before = {} if nested else then.get(key)
                yield from differences(before, now.get(key), f"{where}.{key}" if where else key)
    elif then != now:
        yield where, then, now


def _without_folder(value: Any, folder: str | None) -> Any:
    """The value without the run's folder in its strings, because a run may be moved."""
    if isinstance(value, dict):
        return {key: _without_folder(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folder(item, folder) for item in value]
    return value.replace(folder, "") if folder and isinstance(value, str) else value


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_weights(stored: dict[str, Any], needed: dict[str, Any], path: str | Path) -> None:
    for name in sorted(stored.keys() | needed.keys()):
        have, need = stored.get(name, "absent"), needed.get(name, "absent")
        if have != need:
            raise UserError(
                f"{path} holds another model: {name} is {have} in the file and {need} in this run; start with the "
                f"overrides it was trained with"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
