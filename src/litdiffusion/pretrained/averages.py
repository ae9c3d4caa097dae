"""Post-hoc averages: the weights of a run averaged with any width, from its snapshots."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litdiffusion.callbacks import PosthocEMA
from litdiffusion.errors import UserError, first_line
from litdiffusion.training.checkpoints import is_intact, read_file
from litdiffusion.training.posthoc import LARGEST_ERROR, SNAPSHOTS, Profile, fit, gamma_of, reachable

Weights = dict[str, Tensor]


def posthoc_average(path: str | Path, content: dict[str, Any], width: float) -> Weights:
    """The average of a width over all of the training up to a checkpoint, by the names of the weights.

    It is the sum of the averages in the checkpoint and in the snapshots of its run before it, with the coefficients of
    `litdiffusion.training.posthoc.fit`; they are summed in float64 and returned in float32.

    Args:
        path: the checkpoint, in the folder ``checkpoints`` of its run.
        content: what it holds.
        width: the standard deviation of the average as a share of the training, see `litdiffusion.training.posthoc`.

    Raises:
        UserError: a run without these averages, a width out of reach, or snapshots that are not of this run.
    """
    state = content.get("callbacks", {}).get(PosthocEMA.__qualname__)
    if not state:
        raise UserError(
            f"{path} has no averages of other widths; train with callbacks=posthoc_ema and give a checkpoint of that "
            f"run, or leave out ema"
        )
    try:
        return _summed(Path(path), state, gamma_of(width), width)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"the averages of {path} cannot be read ({first_line(error)}); leave out ema") from error


def with_average(state: Weights, average: Weights) -> Weights:
    """A denoiser's tensors with the average in place of its weights; buffers stay as they are.

    Raises:
        UserError: it has other weights.
    """
    if any(name not in state or state[name].shape != value.shape for name, value in average.items()):
        raise UserError("the averages in this checkpoint are of another net than its weights; take another file")
    return state | average


def _summed(path: Path, state: dict[str, Any], gamma: float, width: float) -> Weights:
    start, end = state["start"], state["step"]
    gammas = [gamma_of(w) for w in state["widths"]]
    files = _snapshots(path.absolute().parent.parent / SNAPSHOTS, start, end)
    stored = [Profile(g, step - start, rounded=True) for step in files for g in gammas]
    stored += [Profile(g, end - start) for g in gammas]
    coefficients, error = fit(stored, Profile(gamma, end - start))
    if error > LARGEST_ERROR:
        least, most = reachable(stored, end - start)
        raise UserError(
            f"ema={width} is out of reach of the {len(files)} snapshots before {path}: they give widths from "
            f"{least:.3f} to {most:.3f}; a run with a larger callbacks.posthoc_ema.kept gives narrower ones"
        )
    parts = iter(coefficients.reshape(-1, len(gammas)))
    total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in state["averages"][0].items()}
    for file in files.values():
        snapshot = read_file(file)
        if (snapshot["start"], snapshot["widths"]) != (start, state["widths"]):
            raise UserError(f"{file} is not of the run of {path}; keep a run's checkpoints and snapshots in its folder")
        _add(total, snapshot["averages"], next(parts))
    _add(total, state["averages"], next(parts))
    return {name: value.float() for name, value in total.items()}


def _add(total: Weights, averages: list[Weights], coefficients: Any) -> None:
    for average, c in zip(averages, coefficients, strict=True):
        for name, value in total.items():
            value.add_(average[name].double(), alpha=float(c))


def _snapshots(folder: Path, start: int, end: int) -> dict[int, Path]:
    """The intact snapshots between two steps, by their steps."""
    steps = {int(file.stem.removeprefix("step_")): file for file in sorted(folder.glob("step_*.pt"))}
    inside = {step: file for step, file in steps.items() if start < step < end}
    intact = {step: file for step, file in inside.items() if is_intact(file)}
    for step in inside.keys() - intact.keys():
        warnings.warn(f"{inside[step]} is damaged and left out; the average is less accurate", stacklevel=2)
    return intact
