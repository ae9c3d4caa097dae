"""Compares the nets of ``conf/model`` on one budget: ``python scripts/backbones.py [spiral digits mnist]``.

Every net trains for about ``--budget`` CPU seconds on one thread with the settings of its case and draws samples that
the metrics of the case measure. Sampling and measuring are not part of the budget. The number of steps follows from a
short timing before. The table of each case in ``docs/backbones.md`` is replaced, the others are kept. FLOPs are those
of one forward call for one sample, two for a multiplication with an addition, without elementwise operations.
"""

import argparse
import logging
import re
import statistics
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from benchmark_others import SAMPLES, SKIP, STEPS, trained
from others import ours
from others.case import Case, make_case
from others.rival import Settings, quiet
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from litdiffusion.errors import UserError
from litdiffusion.measure.distances import Estimate
from litdiffusion.measure.quality import Quality

PAGE = Path(__file__).parent.parent / "docs" / "backbones.md"
# unet1d takes sequences, which have no metrics.
IMAGES = ["unet", "source_unet", "dit", "diffusers_unet", "diffusers_dit", "mlp"]
NETS = {"spiral": ["mlp", "residual_mlp"], "digits": IMAGES, "mnist": IMAGES}
# A budget of minutes needs a short average.
OF_IMAGES = ["recipe=flow_edm", "optimizer=muon", "lr_schedule=wsd", "data.batch_size=32", "ema_decay=0.99"]
RUN = {"spiral": ["ema_decay=0.99"], "digits": OF_IMAGES, "mnist": OF_IMAGES}
CALLS = 50
"""Largest number of network calls per sample."""


class Length(NamedTuple):
    """CPU seconds of training, rounds of timing, and steps of such a round."""

    budget: float
    rounds: int
    timed: int


class Row(NamedTuple):
    """What is measured of a net; the rates are items per CPU second, one for each round of timing."""

    net: str
    parameters: int
    flops: int
    rates: list[float]
    steps: int
    seconds: float
    quality: dict[str, Estimate]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="cases (none: spiral and digits) and overrides (key=value)")
    parser.add_argument("--budget", type=float, default=60, help="CPU seconds of training for each net")
    parser.add_argument("--rounds", type=int, default=3, help="how often the speed is timed")
    parser.add_argument("--n", type=int, help="samples; default: 10000 points or 500 images")
    parser.add_argument("--net", action="append", help="a net of the case, repeatable; default: all")
    parser.add_argument("--steps", type=int, help="timed steps of a round; default: set by the case")
    parser.add_argument("--only-print", action="store_true", help="leave docs/backbones.md as it is")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # a line about accelerators for every training
    warnings.filterwarnings("ignore", module="lightning")
    cases = [word for word in arguments.words if "=" not in word] or ["spiral", "digits"]
    overrides = tuple(word for word in arguments.words if "=" in word)
    for case in cases:
        n = arguments.n or SAMPLES[case]
        nets = [net for net in NETS[case] if arguments.net is None or net in arguments.net]
        length = Length(arguments.budget, arguments.rounds, arguments.steps or STEPS[case])
        rows = [measured(case, net, overrides, length, n) for net in nets]
        text = table(case, rows, overrides, arguments.budget, n)
        print(text, flush=True)
        if not arguments.only_print:
            PAGE.write_text(with_table(PAGE.read_text(), case, text))


def measured(name: str, net: str, overrides: tuple[str, ...], length: Length, n: int) -> Row:
    """Times the net, trains it for the budget, and measures its samples."""
    with quiet():
        case, quality = make_case(name, (*RUN[name], f"model={net}", *overrides))
        built = case.net().net
    settings = Settings(calls=CALLS)
    skip = min(SKIP[name], length.timed - 1)
    paces = [trained(ours.RIVAL, case, length.timed, skip, settings)[1].cpu for _ in range(length.rounds)]
    steps = max(2, round(length.budget / statistics.median(paces)))
    model, pace = trained(ours.RIVAL, case, steps, 1, settings)
    with quiet():
        found = quality.measure(model.draw(n).float())
    parameters = sum(parameter.numel() for parameter in built.parameters())
    rates = [case.batch / pace for pace in paces]
    return Row(net, parameters, flops_per_sample(built, case), rates, steps, pace.cpu * steps, shown(found, quality))


def shown(found: dict[str, Estimate], quality: Quality) -> dict[str, Estimate]:
    return {name: found[name] for name in (quality.headline, "confidence") if name in found}


def flops_per_sample(net: nn.Module, case: Case) -> int:
    """FLOPs of one forward call for one sample."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, *case.shape), torch.ones(1))  # fused attention is not counted on a CPU
    return counter.get_total_flops()


def table(case: str, rows: list[Row], overrides: tuple[str, ...], budget: float, n: int) -> str:
    """The rows as Markdown, with the command and the conditions above."""
    names = list(rows[0].quality)
    words = " ".join((*RUN[case], "conditional=false", *overrides))
    unit = "points" if case == "spiral" else "images"
    lines = [
        f"`python scripts/backbones.py {' '.join((case, *overrides))} --budget {budget:g}`: `data={case} {words}`, one "
        f"thread, about {budget:g} CPU seconds of training, one training of each net, {n} samples with at most {CALLS} "
        f"calls; ± is the spread of the measure over samples, not over trainings.",
        "",
        f"| net | parameters | MFLOPs | {unit} per CPU s (range) | steps, CPU s | "
        + " | ".join(name.replace("_", " ") for name in names)
        + " |",
        "|---" * (5 + len(names)) + "|",
    ]
    for row in rows:
        size = f"{row.parameters:,}".replace(",", " ")
        speed = f"{statistics.median(row.rates):.0f} ({min(row.rates):.0f} to {max(row.rates):.0f})"
        quality = [f"{found.value:.3g} ± {found.spread:.2g}" for found in row.quality.values()]
        cells = [f"`{row.net}`", size, f"{row.flops / 1e6:.3g}", speed, f"{row.steps}, {row.seconds:.0f}", *quality]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(page: str, case: str, text: str) -> str:
    """The page with the table of a case replaced.

    Raises:
        UserError: the page has no place for it.
    """
    place = re.compile(rf"(<!-- begin {case} -->\n).*?(<!-- end {case} -->)", re.DOTALL)
    if not place.search(page):
        raise UserError(
            f"the page has no place for {case}; add the lines <!-- begin {case} --> and <!-- end {case} -->"
        )
    return place.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


if __name__ == "__main__":
    main()
