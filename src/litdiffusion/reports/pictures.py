"""Pictures for the first row of an evaluation: its samples, and their nearest training images."""

from pathlib import Path

from torch import Tensor

from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.plots import comparison_picture, image_grid, pairs_picture
from litdiffusion.reports.subjects import Subject
from litdiffusion.reports.table import Row
from litdiffusion.runs.files import write_picture

SHOWN, PAIRS = 100, 20


def write_checks(folder: Path, subject: Subject, samples: Tensor) -> Row:
    """Writes ``samples.png``, and for images ``nearest.png``; returns the share of copied training images."""
    if samples.ndim != 4:
        sets = {"data": subject.quality.data.reference(len(samples)), "samples": samples}
        write_picture(folder / "samples.png", comparison_picture(sets))
        return {}
    limits = subject.pretrained.value_range or BYTES
    shown = samples[:SHOWN]
    write_picture(folder / "samples.png", image_grid(shown, max(1, round(len(shown) ** 0.5)), limits))
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
