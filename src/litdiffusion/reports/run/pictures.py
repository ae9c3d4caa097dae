"""The pictures of a run with what one sees in them, and what good looks like."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from litdiffusion.reports.html.blocks import Block, Grid, Picture, Section, Text
from litdiffusion.reports.html.images import Room
from litdiffusion.reports.run.reading import Reading


class Known(NamedTuple):
    """Files of a kind: a pattern, of which the last file is shown, and what is written beside it."""

    pattern: str
    title: str
    caption: str
    alt: str


ANIMATION = Known(
    "trajectory.gif",
    "The reverse process, moving",
    "The reverse process of the finished model, one state after another: pure noise at the start, samples at the end. "
    "Good: structure appears early, details late, and the last state looks like data.",
    "Animation of the reverse process from pure noise to samples",
)
TRAJECTORY = Known(
    "trajectory_step_*.png",
    "The states of one trajectory",
    "The same process on one sheet, at the last step that was drawn; noise first, samples last.",
    "Sheet of the states of the reverse process, from noise to samples",
)
SAMPLES = Known(
    "samples.png",
    "Samples at the end",
    "Fresh samples of the finished model beside data and density estimates that were fitted to the same data, with the "
    "distance of each from fresh data over the noise floor. Good: 1, as good as data.",
    "Samples of the finished model beside data",
)
IMAGES = SAMPLES._replace(
    caption="Fresh samples of the finished model, under their classes if it has any. Good: no sample would stand out "
    "among the held-out data beside it.",
    alt="Samples of the finished model",
)
DATA = Known(
    "data.png",
    "Held-out data",
    "As many images that the model has not seen. Good samples could stand here.",
    "Held-out images of the data set",
)
PROCESS = (
    Known(
        "forward_process.png",
        "The forward process: what the model has to undo",
        "Data at growing noise, from clean to the end of the process. Good: the last state shows nothing of the data.",
        "Data at growing noise, from clean data to pure noise",
    ),
    Known(
        "field*.png",
        "The learned field",
        "Arrows of the learned score (or velocity) over the density of the noised data, at several levels of noise. "
        "Good: arrows point to where the density is high; where the exact field is known it lies beneath, in grey.",
        "Arrows of the learned field over the density of noised data",
    ),
)
FURTHER = (
    Known(
        "reconstructions_step_*.png",
        "Reconstructions",
        "Held-out items above, what the autoencoder makes of them below. Good: no difference to see.",
        "Held-out items and their reconstructions",
    ),
    Known(
        "latent_walk.png",
        "A walk through latent space",
        "Decoded points between the latents of two items. Good: every step looks like data.",
        "Decoded images along a line between two latents",
    ),
    Known(
        "langevin_path.png",
        "The path of one Langevin chain",
        "From black to red. Good: the path visits every part of the density.",
        "Path of one Langevin chain over the density",
    ),
    Known(
        "condition*.png",
        "Samples by condition",
        "Samples at several values of a condition, from the same noise. Good: the value alone changes.",
        "Samples at several values of a condition",
    ),
)
MOST_OTHERS = 4
"""Largest number of pictures of files that this project does not write."""


def samples_sections(run: Reading, room: Room) -> Iterator[Section]:
    """The trajectory, then samples beside data; what has no picture is left out."""
    moving = list(_shown(run, room, [ANIMATION, TRAJECTORY]))
    moving += [first] if (first := _first_trajectory(run, room)) else []
    if moving:
        yield Section("trajectory", "From noise to data", moving)
    of_images = len(run.record.about.get("shape", ())) == 3
    samples = list(_shown(run, room, [IMAGES if of_images else SAMPLES, DATA]))
    if samples:
        yield Section("samples", "Samples beside data", [Grid(samples)] if len(samples) > 1 else samples)


def process_section(run: Reading, room: Room) -> Section | None:
    """The forward process, the field, and all other pictures."""
    blocks: list[Block] = [*_shown(run, room, [*PROCESS, *FURTHER]), *_others(run, room)]
    if room.refused:
        names = ", ".join(room.refused)
        blocks.append(Text(f"Left out, because damaged or too large for this page: {names} (in the run's pictures/)."))
    return Section("process", "The process", blocks) if blocks else None


def _shown(run: Reading, room: Room, kinds: list[Known]) -> Iterator[Picture]:
    for known in kinds:
        for path in _files(run, known.pattern)[-1:]:
            if image := room.embed(path):
                yield Picture(image, known.title, known.caption, known.alt)


def _first_trajectory(run: Reading, room: Room) -> Picture | None:
    """The first sheet, if there are several: what the model made of the same noise early on."""
    paths = _files(run, TRAJECTORY.pattern)
    if len(paths) < 2 or (image := room.embed(paths[0], width=1000, limit=100_000)) is None:
        return None
    step = int(paths[0].stem.rpartition("_")[2])
    caption = f"The same noise after {step:,} steps of training, for comparison with the sheet above."
    return Picture(image, "Early in training", caption, f"States of the reverse process after {step} steps")


def _others(run: Reading, room: Room) -> Iterator[Picture]:
    """Pictures that callbacks of a user have left."""
    patterns = [known.pattern for known in (ANIMATION, TRAJECTORY, SAMPLES, DATA, *PROCESS, *FURTHER)]
    others = [path for path in _files(run, "*") if not any(path.match(pattern) for pattern in patterns)]
    for path in [path for path in others if path.suffix in (".png", ".gif", ".jpg", ".webp")][:MOST_OTHERS]:
        if image := room.embed(path):
            yield Picture(image, path.stem.replace("_", " "), "", path.stem.replace("_", " "))


def _files(run: Reading, pattern: str) -> list[Path]:
    """Files by name; steps have leading zeros."""
    return sorted(path for path in (run.folder / "pictures").glob(pattern) if path.is_file())
