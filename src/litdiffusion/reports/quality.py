"""The quality of checkpoints for every sampler, number of steps and guidance: a table, a csv file, plots, and W&B."""

import math
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from litdiffusion.config.settings import require_int
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.samplers import Draws
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import Estimate
from litdiffusion.plots import Curve, guidance_picture, quality_picture
from litdiffusion.pretrained.outputs import folder_for
from litdiffusion.pretrained.processes import Processes, processes
from litdiffusion.reports.accuracy import accuracy_numbers
from litdiffusion.reports.dashboard import show_report
from litdiffusion.reports.pictures import write_checks
from litdiffusion.reports.subjects import NamedSampler, Subject, as_list, check_choices, fitting_samplers, subjects
from litdiffusion.reports.table import Row, text_table, write_csv
from litdiffusion.runs.files import write_picture

SAMPLES = {1: 10_000, 2: 2000, 3: 1000}
"""Number of dimensions of one sample -> default number of samples; images and sequences cost more than points."""
PLAIN = {"ema": "plain average", "raw": "raw weights"}
LEADING = ("checkpoint", "weights", "sampler", "calls", "guidance", "seconds")
SHARES = ("precision", "recall", "class_accuracy")
"""Measures in [0, 1] that are shown beside the headline against the weight of guidance."""


class Samples(NamedTuple):
    """Samples (N, ...) in data space on the CPU, their class labels as the data count them, their final level, and the
    seconds they took.
    """

    x: Tensor
    class_labels: Tensor | None
    level: Level
    seconds: float


def evaluate_to_files(cfg: DictConfig, samplers: Path) -> Path | None:
    """Measures every checkpoint x weights x sampler x steps x guidance, prints the table, returns the files' folder.

    ``quality.csv`` holds all numbers with spread and n, ``quality.png`` shows them against network calls, and
    ``ema.png`` against the widths of ``cfg.ema``, ``guidance.png`` against the weight of guidance, if there are
    several. The samples of the first row are shown, for images with their nearest training images. Non-finite samples
    are neither measured nor shown. ``samplers`` is the folder of the sampler group's yamls. Several processes draw
    together; the first one measures, the others return None.
    """
    _check(cfg, samplers)
    with processes(cfg.device, cfg.devices, cfg.num_nodes) as here:
        chosen = list(subjects(cfg))
        if not here.is_first:
            for _ in _drawn(cfg, chosen, samplers, here):
                pass  # the first process has the samples
            return None
        return _evaluate(cfg, chosen, samplers, here)


def _evaluate(cfg: DictConfig, chosen: list[Subject], samplers: Path, here: Processes) -> Path:
    folder = folder_for(cfg, "evaluation", "quality.csv", chosen[0].path)
    rows: list[Row] = []
    for row in _rows(cfg, chosen, samplers, folder, here):
        rows.append(row)
        write_csv(folder / "quality.csv", rows)  # written after each row, so that a later failure loses nothing
    if not rows:
        raise UserError(
            "no sampler of samplers=[...] fits these checkpoints with these steps; take samplers=own steps=null"
        )
    _report(cfg, chosen, rows, folder)
    return folder


def _check(cfg: DictConfig, samplers: Path) -> None:
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: litdiffusion evaluate ckpt=outputs/.../checkpoints/last.ckpt")
    optional = {"n": 20} if cfg.n is not None else {}
    for name, least in {"sets": 1, "batch_size": 1, "seed": 0, **optional}.items():
        require_int(cfg, name, least)
    check_choices(cfg, samplers)
    if not as_list(cfg.guidance):
        raise UserError("guidance=[] names no weight; give numbers such as [1,1.5,2,3], or leave it out")


class Walk(NamedTuple):
    """One row to be measured; ``index`` counts the rows of its subject, from 0."""

    subject: Subject
    index: int
    named: NamedSampler
    weight: float


def _drawn(
    cfg: DictConfig, chosen: list[Subject], samplers: Path, here: Processes
) -> Iterator[tuple[Walk, Samples | None]]:
    """Yields every row with its samples, which only the first process has."""
    for subject in chosen:
        with here.first_alone():  # downloads data, trains a classifier
            subject.quality.data.load()
            if here.is_first:  # it measures; a missing file ends the report before samples are drawn for hours
                subject.quality.prepare()
            guide = subject.pretrained.guide(cfg.get("guide"), cfg.data_root, cfg.data_path)
            weights = [subject.pretrained.weight(weight, guide) for weight in as_list(cfg.guidance)]
        walks = product(fitting_samplers(cfg, subject.pretrained, samplers), weights)
        for index, (named, weight) in enumerate(walks):
            draws = subject.pretrained.draws(named.sampler, here.device, cfg.clip, weight, guide, cfg.precision)
            yield Walk(subject, index, named, weight), _draw(cfg, subject, named.name, draws, here)


def _rows(cfg: DictConfig, chosen: list[Subject], samplers: Path, folder: Path, here: Processes) -> Iterator[Row]:
    """Yields one row at a time. The first row of all writes pictures; the first row of a subject has the accuracy."""
    for (subject, index, named, weight), samples in _drawn(cfg, chosen, samplers, here):
        row = _measure_row(cfg, subject, named, weight, samples)
        finite = subject.quality.headline in row
        if finite and subject is chosen[0] and index == 0:
            row |= write_checks(folder, subject, samples.x, samples.class_labels)
        if finite and cfg.accuracy and index == 0:
            row |= accuracy_numbers(subject, samples.x, samples.class_labels)
        yield row


def _measure_row(cfg: DictConfig, subject: Subject, named: NamedSampler, weight: float, samples: Samples) -> Row:
    n = len(samples.x) // cfg.sets
    row: Row = {
        "checkpoint": subject.name,
        "weights": subject.weights,
        "sampler": named.name,
        "calls": named.sampler.calls(subject.pretrained.denoiser.schedule),
        "guidance": weight,
        "seconds": samples.seconds / cfg.sets,
        "n": n,
    }
    if subject.width is not None:
        row["width"] = subject.width
    guided = "" if weight == 1 else f"guidance {weight:g}, "
    line = f"{subject.name}, {subject.weights}, {named.name}, {row['calls']} calls, {guided}{row['seconds']:.1f} s:"
    if not samples.x.isfinite().all():
        print(f"{line} samples are not finite and are not measured", flush=True)
        return row
    measured = subject.quality.measure(samples.x, n, samples.level, samples.class_labels)
    value, spread, _ = measured[subject.quality.headline]
    print(f"{line} {subject.quality.headline} {value:.3g} ± {spread:.2g}", flush=True)
    return row | measured


def _draw(cfg: DictConfig, subject: Subject, name: str, draws: Draws, here: Processes) -> Samples | None:
    pretrained = subject.pretrained
    each = cfg.n or SAMPLES[len(pretrained.shape)]
    class_labels, told = pretrained.told_like(subject.quality.data, each, cfg.seed)
    n, levels = each * cfg.sets, []
    size = min(cfg.batch_size, n)
    begin = time.perf_counter()
    with tqdm(total=n, unit="sample", desc=name, mininterval=0.5, leave=False, disable=not here.is_first) as bar:

        def draw(index: int) -> Tensor:
            end = draws.block(index, size, fold_seed(cfg.seed, "evaluation"), told)
            levels.append(end.level)
            bar.update(len(end.x) * here.world)
            return end.x

        parts = here.map(draw, range(math.ceil(n / size)))
    if parts is None:
        return None
    seconds = time.perf_counter() - begin
    return Samples(
        torch.cat(parts)[:n], None if class_labels is None else class_labels.repeat(cfg.sets), levels[-1], seconds
    )


def _report(cfg: DictConfig, chosen: list[Subject], rows: list[Row], folder: Path) -> None:
    """Prints the table, writes csv and plot, and logs to W&B if ``cfg.wandb`` is true."""
    quality = chosen[0].quality
    rivals = quality.rivals(rows[0]["n"])
    lines = rows + [{"checkpoint": name, **measured} for name, measured in rivals.items()]
    measures = [name for name in dict.fromkeys(key for row in lines for key in row) if _is_measure(lines, name)]
    guided = any(row.get("guidance", 1) != 1 for row in rows)
    print(text_table(lines, [*(name for name in LEADING if guided or name != "guidance"), *measures]))
    print(quality.legend())
    write_csv(folder / "quality.csv", lines)
    levels = {name: measured[quality.headline].value for name, measured in rivals.items()}
    write_picture(folder / "quality.png", quality_picture(_curves(rows, quality.headline), levels, quality.headline))
    if cfg.ema is not None:
        write_picture(folder / "ema.png", _width_picture(rows, levels, quality.headline))
    if len({row["guidance"] for row in rows}) > 1:
        shares = {name: _curves(rows, name, "guidance") for name in SHARES}
        swept = _curves(rows, quality.headline, "guidance")
        write_picture(folder / "guidance.png", guidance_picture(swept, levels, quality.headline, shares))
    if cfg.wandb:
        show_report(cfg, folder, lines, chosen)
    print(f"evaluation: {folder}")


def _is_measure(rows: list[Row], name: str) -> bool:
    return any(isinstance(row.get(name), Estimate) for row in rows)


def _curves(rows: list[Row], measure: str, over: str = "calls") -> list[Curve]:
    """The curves of a measure over network calls, or over ``guidance``: one for each value of all else."""
    several = len({(row["checkpoint"], row["weights"]) for row in rows}) > 1
    other = {"calls": "guidance", "guidance": "calls"}[over]
    varies = len({row.get(other) for row in rows}) > 1
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row[over] is not None and measure in row:
            name = f"{row['sampler']}, {row['checkpoint']} {row['weights']}" if several else str(row["sampler"])
            name += f", {other} {row[other]:g}" if varies and row[other] is not None else ""
            groups.setdefault(name, []).append((row[over], *row[measure][:2]))
    return [Curve(name, sorted(points)) for name, points in groups.items()]


def _width_picture(rows: list[Row], levels: dict[str, float], headline: str) -> Image:
    """One curve over the widths of post-hoc averages for each checkpoint, sampler and number of calls.

    The other weights (the plain average) are lines across if there is only one curve.
    """
    groups: dict[str, list[tuple[float, float, float]]] = {}
    others: dict[str, float] = {}
    for row in (row for row in rows if headline in row):
        name = f"{row['checkpoint']}, {row['sampler']}, {row['calls'] or 'adaptive'} calls"
        if "width" in row:
            groups.setdefault(name, []).append((row["width"], *row[headline][:2]))
        else:
            others[PLAIN.get(row["weights"], row["weights"])] = row[headline].value
    curves = [Curve(name, sorted(points)) for name, points in groups.items()]
    words = {"across": "width of the average, as a share of the training", "title": "Quality against the average"}
    return quality_picture(curves, levels | (others if len(curves) == 1 else {}), headline, **words)
