"""The card of an exported model, README.md: what it is, how it was trained, its numbers and pictures."""

import csv
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from litdiffusion.config.keys import relevant
from litdiffusion.runs.files import write_atomically
from litdiffusion.runs.record import RunRecord, read_record

CARD = "README.md"
PICTURES = {"samples.png": "Samples", "trajectory.gif": "From noise to samples"}
"""File of a run's pictures -> caption."""
HIDDEN = ("name", "tags", "budget", "threads")
"""Overrides that do not change what is trained; paths of this machine are left out too."""
COLUMNS = ("weights", "sampler", "calls", "guidance", "n")
"""Columns of an evaluation that tell its rows apart."""


def write_card(folder: Path, checkpoint: Path, config: Mapping[str, Any], push: str | None = None) -> None:
    """Writes the card of the export in ``folder``, and copies the pictures of the checkpoint's run.

    Numbers are those of the run's record and, if ``litdiffusion evaluate`` was run, those of its newest table.

    Args:
        folder: folder of the export.
        checkpoint: the checkpoint that was exported.
        config: its config.
        push: the model's name on the hub; None: the folder's.
    """
    run = checkpoint.absolute().parent.parent
    record = read_record(run)
    pictures = [name for name in PICTURES if (run / "pictures" / name).is_file()]
    for name in pictures:
        shutil.copyfile(run / "pictures" / name, folder / name)
    text = "\n".join(_lines(push or folder.name, config, record, pictures, _evaluated(checkpoint), push))
    write_atomically(folder / CARD, (_metadata(config) + text + "\n").encode())


def _metadata(config: Mapping[str, Any]) -> str:
    """The head of the card that the hub reads; empty without the package ``huggingface_hub``."""
    try:
        from huggingface_hub import ModelCardData
    except ImportError:
        return ""
    data = config.get("data") or {}
    on_hub = [data["name"]] if "HuggingFaceSet" in str(data.get("_target_")) and data.get("name") else None
    images = len(config["derived"]["shape"]) == 3
    card = ModelCardData(
        library_name="litdiffusion",
        tags=["litdiffusion", "diffusion"],
        datasets=on_hub,
        pipeline_tag="unconditional-image-generation" if images else None,
    )
    return f"---\n{card.to_yaml()}\n---\n\n"


def _lines(
    name: str,
    config: Mapping[str, Any],
    record: RunRecord | None,
    pictures: list[str],
    table: list[dict[str, str]],
    push: str | None,
) -> Iterator[str]:
    model = f"hf:{push}" if push else name
    yield from (f"# {name}", "", "A diffusion model trained by litdiffusion.", "")
    yield from _code(
        "python", "from litdiffusion import Pretrained", "", f'samples = Pretrained("{model}").sample(n=16)'
    )
    yield from _code("bash", f"litdiffusion sample ckpt={model} n=16")
    yield from (f"![{PICTURES[file]}]({file})\n" for file in pictures)
    yield from ("## What it is", "", "| part | value |", "|---|---|")
    yield from (f"| {key} | {value} |" for key, value in _parts(config))
    yield ""
    if record is not None:
        yield from _training(record)
    if table:
        yield from _measured(table)
    yield from ("## Licence", "", "None is set: name one here, and as `license:` at the head of this file.")


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    derived, data = config["derived"], config.get("data") or {}
    kind = str(data.get("_target_", "not stored")).rpartition(".")[2]
    of_it = ", ".join(
        str(data[key]) for key in ("name", "dataset", "config_name", "revision", "split") if data.get(key)
    )
    yield "data", f"{kind}{f' ({of_it})' if of_it else ''}, items of shape {list(derived['shape'])}"
    yield "classes", str(derived["num_classes"] or "none")
    for name in ("model", "schedule", "parameterization", "sampler"):
        part = dict(config.get(name) or {})
        target = str(part.pop("_target_", "not stored")).rpartition(".")[2]
        plain = {
            key: value for key, value in part.items() if isinstance(value, int | float | str | list) and value != []
        }
        yield name, f"{target} ({', '.join(f'{key}={value}' for key, value in plain.items())})" if plain else target
    yield "guidance", str(config.get("guidance"))


def _training(record: RunRecord) -> Iterator[str]:
    pairs = ((word, *word.partition("=")[::2]) for word in relevant(record.overrides))
    words = [word for word, key, value in pairs if key not in HIDDEN and not value.startswith(("/", "~", ".."))]
    hardware = record.hardware[-1] if record.hardware else {}
    yield from ("## Training", "")
    yield from _code("bash", shlex.join(["litdiffusion", "train", *words]))
    items = record.data or {}
    counts = f"{items['training']} training and {items['validation']} validation {items['noun']}, " if items else ""
    on = ", ".join(f"{key} {value}" for key, value in hardware.items())
    seed = record.config.get("seed")
    yield f"{counts}{record.step} steps, seed {seed}, {record.minutes:.1f} minutes of wall time ({on})."
    yield ""
    numbers = {
        key: value for key, value in record.metrics.items() if key.startswith(("val/loss", "samples/", "quality/"))
    }
    if numbers:
        yield from (
            "Numbers at the end of the run (one seed; `quality/` of the few samples that a run measures live):",
            "",
        )
        yield from ("| number | value |", "|---|---|")
        yield from (f"| {key} | {value:.4g} |" for key, value in numbers.items())
        yield ""


def _measured(rows: list[dict[str, str]]) -> Iterator[str]:
    """A table of an evaluation, value ± spread, with a row of the data itself: the noise floor."""
    spread = "_spread"
    measures = [key.removesuffix(spread) for key in rows[0] if key.endswith(spread)]
    shown = [key for key in COLUMNS if key in rows[0]]
    yield from ("## Measured", "", "By `litdiffusion evaluate`, value ± spread; held-out data are the floor:", "")
    yield "| " + " | ".join([*shown, *measures]) + " |"
    yield "|" + "---|" * (len(shown) + len(measures))
    for row in rows:
        known = [_short(row[key]) for key in shown]
        if row.get("checkpoint") == "data":
            known = ["held-out data", *known[1:-1], _short(row.get(f"{measures[0]}_n", ""))]
        pairs = [f"{_short(row[key])} ± {_short(row[key + spread], 2)}" if row[key] else "" for key in measures]
        yield "| " + " | ".join([*known, *pairs]) + " |"
    yield ""


def _evaluated(checkpoint: Path) -> list[dict[str, str]]:
    """The rows of the newest evaluation beside the checkpoint."""
    tables = sorted(checkpoint.parent.glob("evaluation_*/quality.csv"), key=lambda path: path.stat().st_mtime)
    if not tables:
        return []
    with tables[-1].open() as file:
        return list(csv.DictReader(file))


def _short(text: str, digits: int = 4) -> str:
    """A number of a table with few digits; other text as it is."""
    try:
        return f"{float(text):.{digits}g}"
    except (TypeError, ValueError):
        return text or ""


def _code(language: str, *lines: str) -> Iterator[str]:
    yield from (f"```{language}", *lines, "```", "")
