"""The head of a run's page: its main number, and in words what was trained, how it ended, where and with what."""

import math
import shlex
from collections.abc import Iterator

from litdiffusion.config.secrets import masked_text, masked_word
from litdiffusion.reports.html.blocks import Block, Card, Cell, Code, Facts, Section, Table, Text
from litdiffusion.reports.numbers import estimate_text, number_text
from litdiffusion.reports.run.config import text_of
from litdiffusion.reports.run.reading import OVER_FLOOR, Reading, finite
from litdiffusion.runs.metric_goals import SPREAD, best_values
from litdiffusion.runs.record import CHECKPOINTS

STATES = {"complete": "good", "failed": "bad", "running": "open", "stopped": "open", "interrupted": "open"}
WORDS = {
    "complete": "finished",
    "stopped": "stopped by a signal; the same command continues it",
    "interrupted": "interrupted: its process is gone; the same command continues it",
    "running": "running",
    "failed": "failed",
    "pruned": "pruned by the search",
    "unreadable": "its run.json is damaged",
}
"""Status -> words for a reader who does not know them."""
NAMES = {"wasserstein": "Wasserstein distance", "frechet": "Fréchet distance"}


def status_words(run: Reading) -> str:
    """How the run ended, and how often it was resumed."""
    resumed = run.record.attempts - 1
    times = f", resumed {'once' if resumed == 1 else f'{resumed} times'}" if resumed > 0 else ""
    return f"{WORDS.get(run.status, run.status)}{times}"


def lead(run: Reading) -> Iterator[str]:
    """What was trained, on what, for how long; the error of a failed run."""
    about = run.record.about
    size = f" with {about['parameters']:,} parameters" if about.get("parameters") else ""
    shape = " × ".join(map(str, about.get("shape", ())))
    count = (run.record.data or {}).get("training")
    items = f" ({count:,} items{f' of shape {shape}' if shape else ''})" if count else ""
    model, data = run.part("model") or "A model", run.part("data") or "data"
    yield f"{model}{size}, trained on {data}{items}, {run.record.step:,} steps in {minutes_text(run.record.minutes)}."
    if run.record.error:
        yield f"Error: {masked_text(run.record.error)}"


def minutes_text(minutes: float) -> str:
    """A time in the unit that suits it."""
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def cards(run: Reading) -> list[Card]:
    """The main number first: of samples at the end, else at validation, else the run's metric."""
    headline = run.headline("samples") or run.headline("quality")
    found = [quality_card(run.numbers, headline)] if headline else []
    if run.metric != headline and (card := _best(run, run.metric)):
        found.append(card)
    if run.metric != "val/loss" and (card := _best(run, "val/loss")):
        found.append(card)
    if "likelihood/nats" in run.numbers:
        found.append(
            Card("−log p of held-out items", f"{number_text(run.numbers['likelihood/nats'])} nats", "at the end")
        )
    return [*found, *_effort(run)]


def quality_card(numbers: dict[str, float], name: str) -> Card:
    """A number over the floor with its spread and what it means."""
    value, spread = numbers[name], numbers.get(name + SPREAD)
    text = number_text(value) if spread is None else estimate_text(value, spread)
    section, _, kind = name.removesuffix(OVER_FLOOR).partition("/")
    when = "samples at the end" if section == "samples" else "a few samples at the last measurement"
    note = f"× noise floor: 1 is as good as data ({when}{'; ± one standard deviation' if spread is not None else ''})"
    return Card(f"{NAMES.get(kind, kind.replace('_', ' '))} of samples from data", text, note)


def _best(run: Reading, name: str) -> Card | None:
    """The best value of a number and the step it was seen at; without a log the last value."""
    series = finite(run.columns.get(name, []))
    if not series:
        return Card(name, number_text(run.numbers[name]), "at the end") if name in run.numbers else None
    rising = run.record.better == "max" and name == run.metric
    sides = best_values([{name: repr(value)} for _, value in series], {name.partition("/")[2]} if rising else ())
    if name not in sides:
        return Card(name, number_text(series[-1][1]), "at the end")
    best = sides[name][1]
    step = next(step for step, value in series if value == best)
    return Card(f"best {name}", number_text(best), f"after {step:,.0f} steps; {number_text(series[-1][1])} at the end")


def _effort(run: Reading) -> Iterator[Card]:
    record, samples = run.record, samples_seen(run)
    yield Card("training time", minutes_text(record.minutes), hardware_words(run))
    planned = record.about.get("steps")
    unfinished = run.status != "complete" and planned and planned != math.inf
    yield Card("steps", f"{record.step:,}", f"of {planned:,} planned" if unfinished else _epochs(run, samples))
    if samples:
        yield Card("items seen", f"{samples:,}", f"{record.about['batch_size']:,} per step and process")


def samples_seen(run: Reading) -> int | None:
    """Steps times items of a step; None if the batch size is not known."""
    about = run.record.about
    each = (run.config.get("trainer") or {}).get("accumulate_grad_batches") or 1
    if not about.get("batch_size") or not isinstance(each, int):
        return None
    return run.record.step * about["batch_size"] * about.get("processes", 1) * each


def _epochs(run: Reading, samples: int | None) -> str:
    count = (run.record.data or {}).get("training")
    return f"{samples / count:.1f} times through the data" if samples and count else ""


def hardware_words(run: Reading) -> str:
    """Devices of the last attempt."""
    if not run.record.hardware:
        return ""
    last = run.record.hardware[-1]
    threads = f", {last['threads']} thread{'s' * (last['threads'] != 1)}" if last.get("device") == "cpu" else ""
    return f"{last.get('devices', 1)} × {last.get('device', '?')}{threads}"


def setup_section(run: Reading) -> Section:
    """The command, and the parts of the run in words."""
    pairs = [
        ("network", run.part("model")),
        ("data", run.part("data")),
        ("noise schedule", run.part("schedule")),
        ("the net predicts", run.part("parameterization")),
        ("objective", " · ".join(filter(None, map(run.part, ("objective", "times", "weighting"))))),
        ("sampler", run.part("sampler")),
        ("optimizer", f"{run.part('optimizer')}, rate {text_of((run.config.get('optimizer') or {}).get('lr'))}"),
        ("seed", str(run.config.get("seed", ""))),
        ("expected by the experiment", _expected(run)),
    ]
    pairs += [
        (name, line.strip()) for name, _, line in (masked_text(each).partition(":") for each in run.record.summary)
    ]
    blocks: list[Block] = [command(run), Facts([(name, value) for name, value in pairs if value])]
    return Section("setup", "What was trained", blocks)


def command(run: Reading) -> Code:
    """The command that trains this run, or continues it, and the one that draws from it."""
    words = [shlex.quote(masked_word(word)) for word in run.record.overrides]
    lines = [" ".join(["litdiffusion train", *words])]
    last = f"checkpoints/{CHECKPOINTS[0]}"
    if (run.folder / last).is_file():
        lines.append(f"litdiffusion sample ckpt={shlex.quote(f'{run.place}/{last}')}")
    return Code([(line, False) for line in lines], command=True)


def _expected(run: Reading) -> str:
    expected = run.config.get("expected")
    if not isinstance(expected, dict) or "value" not in expected:
        return ""
    return f"{expected.get('metric')} {expected['value']} ± {expected.get('tolerance')}, for its own command and length"


def environment_section(run: Reading) -> Section:
    """When each attempt began, on what machine, and with which versions."""
    attempts = [
        {"attempt": str(k + 1)} | {name: str(value) for part in pair for name, value in part.items()}
        for k, pair in enumerate(_pairs(run))
    ]
    if not attempts:
        return Section("environment", "Environment", [Text("The record of this run names no versions.")])
    names = list(dict.fromkeys(name for attempt in attempts for name in attempt))
    if len(attempts) == 1:
        return Section("environment", "Environment", [Facts([(name, attempts[0][name]) for name in names[1:]])])
    rows = [[Cell(name), *(Cell(attempt.get(name, "")) for attempt in attempts)] for name in names[1:]]
    table = Table(["", *(f"attempt {attempt['attempt']}" for attempt in attempts)], rows)
    return Section("environment", "Environment", [table])


def _pairs(run: Reading) -> Iterator[tuple[dict, dict]]:
    """What each attempt's record says of its session and its hardware; the older records lack sessions."""
    sessions, hardware = run.record.sessions, run.record.hardware
    for k in range(max(len(sessions), len(hardware))):
        early = k - len(hardware) + len(sessions)
        yield sessions[early] if 0 <= early < len(sessions) else {}, hardware[k] if k < len(hardware) else {}
