"""Compares with other packages: ``python scripts/benchmark_others.py spiral --quality 60``.

All packages that are installed train the same net from the same weights, on the same data with the same batch size, on
one thread of a CPU, each as its own documentation shows (see ``scripts/others``). The others are named and left out.
Rounds alternate, so that a busy machine slows all of them equally. The first table has training items per second of CPU
time, the loaders' processes included, and per second of the clock. With ``--quality SECONDS`` each package then trains
for about as many seconds of CPU time, a number of steps that follows from the first table, and draws n samples by its
own sampler, measured by the metrics of the config. ``seed=1`` repeats all of it with other random numbers.
"""

import argparse
import logging
import random
import statistics
import warnings

import numpy as np
import torch
from others import ddpm_trainer, diffusers_loop, ours, small_loop
from others.case import CASES, Case, make_case
from others.clock import Clock, Pace, cpu_seconds
from others.rival import Rival, Settings, Trained, quiet

from litdiffusion.measure.distances import Estimate
from litdiffusion.measure.quality import Measured, Quality

RIVALS = (ours.RIVAL, ddpm_trainer.RIVAL, small_loop.RIVAL, diffusers_loop.RIVAL)
STEPS, SKIP = {"spiral": 400, "digits": 20, "mnist": 12}, {"spiral": 50, "digits": 3, "mnist": 3}
SAMPLES = {"spiral": 10_000, "digits": 500, "mnist": 500}
EXTRA = "confidence"
"""A further number for images, beside the headline of the metrics."""


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # a line about accelerators for every training
    warnings.filterwarnings("ignore", module="lightning")
    rivals = installed([rival for rival in RIVALS if arguments.only is None or rival.name in arguments.only])
    case, quality = make_case(arguments.case, tuple(arguments.overrides))
    describe(case, rivals)
    skip = SKIP[case.name] if arguments.steps is None else 1
    steps = STEPS[case.name] if arguments.steps is None else arguments.steps + skip
    settings = Settings(arguments.lr, arguments.calls)
    paces: dict[str, list[Pace]] = {rival.name: [] for rival in rivals}
    for _ in range(arguments.rounds):
        for rival in rivals:
            paces[rival.name].append(trained(rival, case, steps, skip, settings)[1])
    report_pace(case, paces)
    if arguments.quality is None:
        return
    n = arguments.n or SAMPLES[case.name]
    print(f"samples after about {arguments.quality:g} CPU seconds of training, n = {n}")
    report_quality("the data", quality.rivals(n)["data"], quality, "the floor: fresh or held-out data")
    for rival in rivals:
        pace = statistics.median(pace.cpu for pace in paces[rival.name])
        compare_quality(rival, case, max(2, round(arguments.quality / pace)), settings, quality, n)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES, help="data: a toy, or images")
    parser.add_argument("overrides", nargs="*", help="overrides of this project's config (key=value)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each package is timed")
    parser.add_argument("--steps", type=int, help="timed steps of a round; default: set by the case")
    parser.add_argument("--quality", type=float, help="CPU seconds of training before samples are measured")
    parser.add_argument("--n", type=int, help="samples; default: 10000 points or 500 images")
    parser.add_argument("--lr", type=float, help="learning rate of the other packages; default: their own")
    parser.add_argument("--calls", type=int, help="largest number of net calls per sample; default: each package's own")
    names = [rival.name for rival in RIVALS]
    parser.add_argument("--only", action="append", choices=names, help="a package to run, repeatable; default: all")
    return parser.parse_intermixed_args()


def installed(rivals: list[Rival]) -> list[Rival]:
    """Those whose packages are installed; the others are named in a line each."""
    for rival in rivals:
        if rival.missing:
            print(f"{rival.name} is left out: not installed (pip install {' '.join(rival.missing)})")
    return [rival for rival in rivals if not rival.missing]


def describe(case: Case, rivals: list[Rival]) -> None:
    """What is common, and what each package forces."""
    with quiet():
        weights = sum(parameter.numel() for parameter in case.net().parameters())
    print(f"{case.name}: {len(case.x)} items {case.shape}, batches of {case.batch}, a net of {weights} weights")
    for rival in rivals:
        print(f"  {rival.name}: {rival.forces(case)}")


def trained(rival: Rival, case: Case, steps: int, skip: int, settings: Settings) -> tuple[Trained, Pace]:
    """Trains for ``steps`` steps; the clock starts after step ``skip``."""
    clock = Clock(skip, steps)
    seed_all(case.seed)
    with quiet():
        model = rival.train(case, steps, settings, clock.tick)
    return model, clock.pace


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def report_pace(case: Case, paces: dict[str, list[Pace]]) -> None:
    """One line per package: items per second of CPU time and of the clock, and the ratio within each round."""
    unit = "images" if case.is_image else "points"
    ours, first = next(iter(paces.items()))
    for name, values in paces.items():
        rates = [case.batch / pace.cpu for pace in values]
        wall = statistics.median(case.batch / pace.wall for pace in values)
        ratio = statistics.median(mine.cpu / pace.cpu for mine, pace in zip(first, values, strict=True))
        speed = f"{statistics.median(rates):9.1f} {unit} per CPU second ({min(rates):.1f} to {max(rates):.1f})"
        print(f"  {name:28} {speed}, {wall:.1f} per second, {ratio:.2f} of the speed of {ours}", flush=True)


def compare_quality(rival: Rival, case: Case, steps: int, settings: Settings, quality: Quality, n: int) -> None:
    model, pace = trained(rival, case, steps, 1, settings)
    start = cpu_seconds()
    with quiet():
        samples = model.draw(n)
    seconds = cpu_seconds() - start
    how = f"{steps} steps in {pace.cpu * steps:.0f} CPU s; {model.sampler}, {seconds:.0f} CPU s"
    report_quality(rival.name, quality.measure(samples.float()), quality, how)


def report_quality(name: str, measured: Measured, quality: Quality, how: str) -> None:
    def text(estimate: Estimate) -> str:
        return f"{estimate.value:.3f} ± {estimate.spread:.3f}"

    extra = f", {EXTRA} {text(measured[EXTRA])}" if EXTRA in measured else ""
    print(f"  {name:28} {quality.headline} {text(measured[quality.headline])}{extra}; {how}", flush=True)


if __name__ == "__main__":
    main()
