"""Pictures for the first row of an evaluation: its samples, and their nearest training images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.plots import comparison_picture, image_grid, pairs_picture
from litdiffusion.reports.subjects import Subject
from litdiffusion.reports.table import Row
from litdiffusion.runs.files import write_picture
from litdiffusion.training.class_labels import class_captions

SHOWN, PAIRS, COLUMNS = 100, 20, 10


def write_checks(folder: Path, subject: Subject, samples: Tensor, class_labels: Tensor | None = None) -> Row:
    """Writes ``samples.png``, and for images ``nearest.png``; returns the share of copied training images.

    ``class_labels`` are those of the samples as the data count them.
    """
    if samples.ndim != 4:
        sets = {"data": subject.quality.data.reference(len(samples)), "samples": samples}
        write_picture(folder / "samples.png", comparison_picture(sets))
        return {}
    limits = subject.pretrained.value_range or BYTES
    shown = samples[:SHOWN]
    columns, captions = max(1, round(len(shown) ** 0.5)), []
    if class_labels is not None:
        names = subject.quality.data.class_names or subject.pretrained.class_names
        shown, columns, captions = _by_class(samples, class_labels, names)
    write_picture(folder / "samples.png", image_grid(shown, columns, limits, captions))
    found = subject.quality.copying(samples)
    if found is None:
        return {}
    train = subject.quality.data.training_reference(len(subject.quality.data.train.data))
    closest = found.nearest.distances.argsort()[:PAIRS]
    pairs = pairs_picture(
        samples[closest],
        train[found.nearest.indices[closest]],
        f"the {len(closest)} samples nearest to training images (the image below each)",
        limits,
    )
    write_picture(folder / "nearest.png", pairs)
    print(
        f"copying check: {100 * found.share.value:.1f} ± {100 * found.share.spread:.1f} % of the samples are as near "
        f"to a training image as the nearest {100 * found.expected:.1f} % of held-out images are; the median "
        f"distance is {found.ratio:.2f} times theirs",
        flush=True,
    )
    return {"copies": found.share}


def _by_class(samples: Tensor, class_labels: Tensor, class_names: Sequence[str]) -> tuple[Tensor, int, list[str]]:
    """Samples of the first ten classes, one column each, with the number of columns and the classes' names."""
    places = [(class_labels[: len(samples)] == k).nonzero().flatten() for k in class_labels.unique()[:COLUMNS]]
    rows = min(COLUMNS, *map(len, places))
    chosen = torch.stack([place[:rows] for place in places], dim=1).flatten()
    return samples[chosen], len(places), class_captions(class_labels[chosen], class_names)
