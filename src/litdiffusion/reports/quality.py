"""The quality of checkpoints for every sampler and number of steps: a table, a csv file, a plot, and W&B."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from litdiffusion.config.settings import require_int
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.measure.distances import Estimate
from litdiffusion.plots import Curve, quality_picture
from litdiffusion.pretrained.outputs import device_for, folder_for
from litdiffusion.reports.accuracy import accuracy_numbers
from litdiffusion.reports.dashboard import show_report
from litdiffusion.reports.pictures import write_checks
from litdiffusion.reports.subjects import NamedSampler, Subject, check_choices, fitting_samplers, subjects
from litdiffusion.reports.table import Row, text_table, write_csv
from litdiffusion.runs.files import write_picture
from litdiffusion.training.class_labels import classes_in_proportion

SAMPLES = {1: 10_000, 3: 1000}
"""Number of dimensions of one sample -> default number of samples; images cost more than points."""
LEADING = ("checkpoint", "weights", "sampler", "calls", "seconds")


class Samples(NamedTuple):
    """Samples (N, ...) in data space on the CPU, their class labels as the data count them, their final level, and the
    seconds they took.
    """

    x: Tensor
    class_labels: Tensor | None
    level: Level
    seconds: float


def evaluate_to_files(cfg: DictConfig, samplers: Path) -> Path:
    """Measures every checkpoint x weights x sampler x steps, prints the table and returns the folder of the files.

    ``quality.csv`` holds all numbers with spread and n, ``quality.png`` shows them against network calls. The samples
    of the first row are shown, for images with their nearest training images. Non-finite samples are neither measured
    nor shown. ``samplers`` is the folder of the sampler group's yamls.
    """
    _check(cfg, samplers)
    chosen = list(subjects(cfg))
    folder = folder_for(cfg, "evaluation", "quality.csv", chosen[0].path)
    rows: list[Row] = []
    for row in _rows(cfg, chosen, samplers, folder):
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
        raise UserError("give a checkpoint: python scripts/evaluate.py ckpt=outputs/.../checkpoints/last.ckpt")
    optional = {"n": 20} if cfg.n is not None else {}
    for name, least in {"sets": 1, "batch_size": 1, "seed": 0, **optional}.items():
        require_int(cfg, name, least)
    check_choices(cfg, samplers)


def _rows(cfg: DictConfig, chosen: list[Subject], samplers: Path, folder: Path) -> Iterator[Row]:
    """Yields one row at a time. The first row of all writes pictures; the first row of a subject has the accuracy."""
    for number, subject in enumerate(chosen):
        for index, named in enumerate(fitting_samplers(cfg, subject.pretrained, samplers)):
            samples = _draw(cfg, subject, named)
            row = _measure_row(cfg, subject, named, samples)
            finite = subject.quality.headline in row
            if finite and number == index == 0:
                row |= write_checks(folder, subject, samples.x, samples.class_labels)
            if finite and cfg.accuracy and index == 0:
                row |= accuracy_numbers(subject, samples.x, samples.class_labels)
            yield row


def _measure_row(cfg: DictConfig, subject: Subject, named: NamedSampler, samples: Samples) -> Row:
    n = len(samples.x) // cfg.sets
    row: Row = {
        "checkpoint": subject.name,
        "weights": subject.weights,
        "sampler": named.name,
        "calls": named.sampler.calls(subject.pretrained.denoiser.schedule),
        "seconds": samples.seconds / cfg.sets,
        "n": n,
    }
    line = f"{subject.name}, {subject.weights}, {named.name}, {row['calls']} calls, {row['seconds']:.1f} s:"
    if not samples.x.isfinite().all():
        print(f"{line} samples are not finite and are not measured", flush=True)
        return row
    measured = subject.quality.measure(samples.x, n, samples.level, samples.class_labels)
    value, spread, _ = measured[subject.quality.headline]
    print(f"{line} {subject.quality.headline} {value:.3g} ± {spread:.2g}", flush=True)
    return row | measured


def _draw(cfg: DictConfig, subject: Subject, named: NamedSampler) -> Samples:
    pretrained, device = subject.pretrained, device_for(cfg.device)
    each = cfg.n or SAMPLES[len(pretrained.shape)]
    class_labels, own_classes = None, None
    if pretrained.num_classes:
        data = subject.quality.data
        labelled = pretrained.labels_in(data, data.train, "give labelled data by data_path")
        class_labels = classes_in_proportion(labelled, each)
        own_classes = pretrained.own_classes(data, class_labels)
    n, parts = each * cfg.sets, []
    size = min(cfg.batch_size, n)
    draws = pretrained.draws(named.sampler, device, cfg.clip, cfg.guidance)
    begin = time.perf_counter()
    with tqdm(total=n, unit="sample", desc=named.name, mininterval=0.5, leave=False) as bar:
        for index in range(math.ceil(n / size)):
            end = draws.block(index, size, fold_seed(cfg.seed, "evaluation"), own_classes)
            parts.append(end.x.cpu())
            bar.update(len(end.x))
    seconds = time.perf_counter() - begin
    return Samples(
        torch.cat(parts)[:n], None if class_labels is None else class_labels.repeat(cfg.sets), end.level, seconds
    )


def _report(cfg: DictConfig, chosen: list[Subject], rows: list[Row], folder: Path) -> None:
    """Prints the table, writes csv and plot, and logs to W&B if ``cfg.wandb`` is true."""
    quality = chosen[0].quality
    rivals = quality.rivals(rows[0]["n"])
    lines = rows + [{"checkpoint": name, **measured} for name, measured in rivals.items()]
    measures = [name for name in dict.fromkeys(key for row in lines for key in row) if _is_measure(lines, name)]
    print(text_table(lines, [*LEADING, *measures]))
    print(quality.legend())
    write_csv(folder / "quality.csv", lines)
    levels = {name: measured[quality.headline].value for name, measured in rivals.items()}
    write_picture(folder / "quality.png", quality_picture(_curves(rows, quality.headline), levels, quality.headline))
    if cfg.wandb:
        show_report(cfg, folder, lines, chosen)
    print(f"evaluation: {folder}")


def _is_measure(rows: list[Row], name: str) -> bool:
    return any(isinstance(row.get(name), Estimate) for row in rows)


def _curves(rows: list[Row], headline: str) -> list[Curve]:
    """One curve over network calls for each checkpoint, choice of weights and sampler."""
    several = len({(row["checkpoint"], row["weights"]) for row in rows}) > 1
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["calls"] and headline in row:
            name = f"{row['sampler']}, {row['checkpoint']} {row['weights']}" if several else str(row["sampler"])
            groups.setdefault(name, []).append((row["calls"], *row[headline][:2]))
    return [Curve(name, sorted(points)) for name, points in groups.items()]
