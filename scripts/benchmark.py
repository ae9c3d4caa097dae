"""Times the framework against hand-written loops: ``python scripts/benchmark.py [toy mlp mnist cifar] [key=value]``.

Both train the same net on the same data with the same batch size, precision, memory format and fused AdamW. "loop"
also clips gradients and averages weights, "bare loop" does neither. "sampling" is a network call of DDIM. Rounds
alternate, so that a busy machine slows all kinds equally. Printed are medians of the rounds. Times are CPU time, or
with ``--device cuda`` the GPU's own time between two events.
"""

import argparse
import logging
import statistics
import warnings
from functools import partial

import torch
from speed import sampling, training
from speed.cases import CASES, STEPS, STEPS_ON_GPU, Length, experiment
from speed.clock import ceiling, flops

KINDS = {
    "framework": training.framework,
    "loop": partial(training.loop, full=True),
    "bare loop": partial(training.loop, full=False),
    "sampling": sampling.framework,
    "sampling loop": sampling.loop,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="cases (none: all; cifar only if named, or on a GPU), and key=value")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", help="batch sizes; by default that of the case")
    parser.add_argument("--compile", nargs="+", default=["false"], help="false, true, or modes such as reduce-overhead")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None, help="timed steps of a round; by default set by the case")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; take --device cpu")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    overrides = [word for word in arguments.words if "=" in word]
    cases = [word for word in arguments.words if "=" not in word]
    for case in cases or [name for name in CASES if arguments.device == "cuda" or name != "cifar"]:
        for size in arguments.batch or [None]:
            batch = [] if size is None else [f"data.batch_size={size}"]
            compare(case, [*batch, *overrides], arguments)


def compare(case: str, overrides: list[str], arguments: argparse.Namespace) -> None:
    """Times all kinds of a case, compiled and not, in turn."""
    accelerator = "gpu" if arguments.device == "cuda" else "cpu"
    timed, before = STEPS_ON_GPU if arguments.device == "cuda" else STEPS[case]
    timed, before = (timed, before) if arguments.steps is None else (arguments.steps, 1)
    lengths = {
        mode: Length(case, (f"trainer.accelerator={accelerator}", f"compile={mode}", *overrides), timed, before)
        for mode in arguments.compile
    }
    times = {
        (kind, mode): []
        for index, mode in enumerate(lengths)
        for kind in arguments.kinds
        if index == 0 or "sampling" not in kind  # samples are drawn without compilation
    }
    for _ in range(arguments.rounds):
        for (kind, mode), values in times.items():
            values.append(KINDS[kind](lengths[mode]))
            torch.compiler.reset()
    report(next(iter(lengths.values())), times, arguments.device)


def report(length: Length, times: dict[tuple[str, str], list[float]], device: str) -> None:
    """One line for each kind: the median, its range, items per second, and the ratio of speeds."""
    work, batch = arithmetic(length, device)
    for (kind, mode), values in times.items():
        seconds, forward = statistics.median(values), 1 / 3 if "sampling" in kind else 1
        print(
            f"{length.case:6} {batch:5} {kind:14} {'' if mode == 'false' else f'compile={mode}':24}",
            f"{1e3 * seconds:9.3f} ms ({1e3 * min(values):.3f} to {1e3 * max(values):.3f})",
            f"{batch / seconds:9.0f} items/s {100 * forward * work / seconds:5.1f} % of a matrix product",
            _ratio(kind, mode, times),
        )


def _ratio(kind: str, mode: str, times: dict[tuple[str, str], list[float]]) -> str:
    """How fast the framework is beside this hand-written loop: the median of the ratios within a round."""
    ours = times.get(("sampling" if "sampling" in kind else "framework", mode))
    if "loop" not in kind or ours is None:
        return ""
    ratio = statistics.median(value / own for value, own in zip(times[kind, mode], ours, strict=True))
    return f" the framework runs at {ratio:.2f} of its speed"


def arithmetic(length: Length, device: str) -> tuple[float, int]:
    """Seconds that the products of a training step would take at the speed of one large matrix product; the batch."""
    built = experiment(length._replace(overrides=(*length.overrides, "compile=false")))
    net, shape, few = built.module.denoiser.net.to(device), built.module.shape, 8
    label = torch.full((few,), 0.5, device=device) + built.module.denoiser.schedule.noise_label_range[0]
    classes = torch.zeros(few, dtype=torch.long, device=device) if built.module.num_classes else None
    dtype = torch.bfloat16 if built.trainer.precision == "bf16-mixed" else torch.float32
    per_item = flops(net, torch.randn(few, *shape, device=device), label, classes) / few
    peak = ceiling(torch.device(device), dtype, 8192 if device == "cuda" else 1024)
    return per_item * built.data.batch_size / peak, built.data.batch_size


if __name__ == "__main__":
    main()
