"""Times a training step of the framework and of a hand-written loop: ``python scripts/benchmark.py [toy|mlp|mnist]``.

Both train the same net on the same data in memory with the same batch size, precision, memory format and fused AdamW.
"loop" also clips gradients and averages weights, "bare loop" does neither. Rounds alternate, so that a busy machine
slows all kinds equally. The script prints medians of the CPU time per step and of the ratio within each round.
"toy" is the spiral with batches of 512, "mlp" the same net with 256, "mnist" a U-Net on 28 x 28 images.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from litdiffusion.build import Experiment, Run, build
from litdiffusion.data import bytes_to_floats

CONF = Path(__file__).parent.parent / "conf"
CASES = {
    "toy": ["data=spiral", "threads=1"],
    "mlp": ["data=spiral", "data.batch_size=256", "threads=1"],
    "mnist": ["data=digits", "model=unet", "data.batch_size=256", "threads=1"],
}
QUIET = [
    *(f"callbacks.{name}=null" for name in ("trajectory", "forward_process", "final_samples", "field", "best", "last")),
    *("callbacks.live_quality=null", "callbacks.live_likelihood=null", "metrics=none"),
    *("trainer.enable_checkpointing=false", "trainer.limit_val_batches=0", "callbacks.progress_bar=null"),
]
STEPS = {"toy": 400, "mlp": 400, "mnist": 6}
SKIP = {"toy": 50, "mlp": 50, "mnist": 2}


class Clock(L.Callback):
    """CPU time per optimizer step, from the end of step ``skip`` to the end of the last step."""

    def __init__(self, skip: int):
        self.skip = skip
        self.first: tuple[int, float] | None = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        now = trainer.global_step, time.process_time()
        if now[0] >= self.skip:
            self.first = self.first or now
        self.last = now

    @property
    def seconds_per_step(self) -> float:
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


class Length(NamedTuple):
    """A case, its further overrides, its number of steps, and after how many steps the clock starts."""

    case: str
    overrides: list[str]
    steps: int
    skip: int


def experiment(length: Length, folder: str) -> Experiment:
    """A run of the framework without pictures, checkpoints and validation."""
    overrides = [*CASES[length.case], *QUIET, f"trainer.max_steps={length.steps}", *length.overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    built = build(cfg, Run(Path(folder)))
    if length.case == "mnist":
        enlarge(built)
    return built


def enlarge(built: Experiment) -> None:
    """Resizes the digits to MNIST's size; the speed of a step does not depend on the content of the images."""
    train = built.data.train
    data = nn.functional.interpolate(train.data.float(), size=28).to(torch.uint8)
    built.data.train = train._replace(data=data)
    built.module.shape = tuple(data.shape[1:])


def framework(length: Length) -> float:
    """Seconds per step of the framework."""
    with TemporaryDirectory() as folder:
        built = experiment(length, folder)
        clock = Clock(length.skip)
        built.trainer.callbacks.append(clock)
        built.trainer.fit(built.module, built.data)
        return clock.seconds_per_step


def loop(length: Length, full: bool) -> float:
    """Seconds per step of a hand-written loop; ``full`` adds clipping and the weight average."""
    with TemporaryDirectory() as folder:
        built = experiment(length, folder)
        net = built.module.denoiser.net
        data, precision = built.data.train.data, built.trainer.precision
        step = hand_written_step(net, built.module.denoiser.schedule, full)
        batch = built.data.batch_size
        for index in range(length.steps):
            if index == length.skip:
                start = time.process_time()
            rows = torch.randint(len(data), (batch,))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                step(bytes_to_floats(data[rows]))
        return (time.process_time() - start) / (length.steps - length.skip)


def hand_written_step(net: nn.Module, schedule, full: bool) -> Callable[[Tensor], None]:
    """One step of plain DDPM training: epsilon prediction, mean squared error, fused AdamW."""
    levels = schedule.at(torch.arange(schedule.steps + 1) / schedule.steps)
    alphas, sigmas = levels.alpha.float(), levels.sigma.float()
    parameters = list(net.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    average = [parameter.detach().clone() for parameter in parameters]

    def step(x_0: Tensor) -> None:
        index = torch.randint(1, schedule.steps + 1, (len(x_0),))
        shape = (-1, *[1] * (x_0.ndim - 1))
        eps = torch.randn_like(x_0)
        x_t = alphas[index].view(shape) * x_0 + sigmas[index].view(shape) * eps
        loss = nn.functional.mse_loss(net(x_t, index.float()).float(), eps)
        optimizer.zero_grad()
        loss.backward()
        if full:
            nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if full:
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1e-3)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="cases (toy, mlp, mnist; none: all) and overrides (key=value)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None, help="timed steps of a round; default: set by the case")
    arguments = parser.parse_args()
    overrides = [word for word in arguments.words if "=" in word]
    for case in [word for word in arguments.words if "=" not in word] or CASES:
        skip = SKIP[case] if arguments.steps is None else 1
        steps = STEPS[case] if arguments.steps is None else arguments.steps + skip
        length = Length(case, overrides, steps, skip)
        kinds = {"framework": framework, "loop": partial(loop, full=True), "bare loop": partial(loop, full=False)}
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(arguments.rounds):
            for name, measure in kinds.items():
                times[name].append(measure(length))
        report(case, times)


def report(case: str, times: dict[str, list[float]]) -> None:
    """One line per kind: median, range and the speed of the framework relative to it."""
    for name, values in times.items():
        ratio = statistics.median(value / ours for value, ours in zip(values, times["framework"], strict=True))
        print(
            f"{case:6} {name:10} {1e3 * statistics.median(values):9.3f} ms/step  "
            f"({1e3 * min(values):.3f} to {1e3 * max(values):.3f})  framework runs at {ratio:.2f} of its speed"
        )


if __name__ == "__main__":
    main()
