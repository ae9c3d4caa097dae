"""Trains or refuses random overrides: ``python scripts/torture_configs.py --cases 1000 --results FILE``.

Every case runs ``python train.py ...`` in this process with random choices of groups and random values, valid and
invalid. It must train one step (status 0) or end in one line (status 2, or 1 if the step diverged). A traceback, more
lines, another status or a timeout is a failure. Failures are printed with their overrides. A case is a function of its
seed; with ``--results`` ten thousand can be run in several calls.
"""

import argparse
import contextlib
import io
import os
import random
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from lottery.chunks import Row, play_chunk

from litdiffusion.config.paths import CONF

ROOT = Path(__file__).parent.parent
GROUPS = (
    *("data", "model", "codec", "schedule", "parameterization", "times", "weighting", "sampler", "recipe"),
    *("optimizer", "lr_schedule", "trainer", "metrics"),
)
DOWNLOADED = {"mnist", "fashion_mnist", "kmnist", "cifar10", "torchvision", "image_folder", "table", "inception", "fid"}
"""Choices that need downloaded files or files of the user."""
SLOW = {"ddp"}
"""Choices that start further processes, which this script cannot check."""

DEFAULTS = {"model": "mlp", "schedule": "linear", "sampler": "ancestral", "optimizer": "adamw", "times": "uniform"}
DEFAULTS |= {"weighting": "simple", "data": "spiral", "lr_schedule": "constant"}
ODD = ["abc", "-1", "0", "1.5", "null", "[]", "{}", "true", "1e400", "nan", "''", "[1,2]", "${seed}", "${nowhere}"]
"""Invalid or unusual values that any key may get."""
VALUES = {
    "seed": ["1", "7", "99999999999999999999"],
    "ema_decay": ["0", "0.9", "1", "0.9999"],
    "learned_variance": ["true", "false"],
    "conditional": ["true", "false"],
    "class_dropout": ["0", "0.5", "2"],
    "clip_samples": ["false"],
    "trainer.gradient_clip_val": ["null", "0.1", "1e9"],
    "trainer.accumulate_grad_batches": ["2", "3"],
    "threads": ["1", "auto", "3"],
    "metric": ["val/loss", "train/loss", "val_loss", "quality/energy"],
    "ckpt_path": ["nowhere.ckpt"],
    "skip_nonfinite": ["3"],
    "data.batch_size": ["4", "16", "100000"],
    "data.val_size": ["8", "100000"],
    "model.hidden": ["8", "16"],
    "model.layers": ["1", "5"],
    "model.channels": ["[8]", "[8,40]", "8", "[8,8,8,8,8]"],
    "model.blocks": ["1", "0"],
    "model.depth": ["1", "2", "9"],
    "model.norm": ["none", "instance", "batch"],
    "schedule.steps": ["1", "2", "20", "200"],
    "schedule.beta_end": ["0.5", "1", "1e-9"],
    "schedule.sigma_max": ["80", "1e-5"],
    "sampler.steps": ["1", "7", "1000000"],
    "sampler.grid": ["karras", "uniform", "log_snr", "linear"],
    "sampler.eta": ["0.5", "1", "2"],
    "sampler.variance": ["forward", "learned", "posterior", "prior"],
    "sampler.step_size": ["0.1", "1e9"],
    "optimizer.lr": ["1e-4", "1e30"],
    "optimizer.betas": ["[0.9,0.99]", "[2,3]", "[0.9]"],
    "optimizer.fused": ["false"],
    "lr_schedule.warmup_steps": ["0", "1000000"],
    "times.mean": ["0", "-1.2"],
    "weighting.gamma": ["5", "-5"],
    "trainer.max_steps": ["1"],
    "trainer.max_epochs": ["1"],
    "trainer.limit_train_batches": ["0", "1", "0.5", "2.5"],
    "trainer.overfit_batches": ["1", "0.5"],
    "trainer.check_val_every_n_epoch": ["1", "null"],
    "trainer.gradient_clip_algorithm": ["value", "norms"],
    "trainer.enable_progress_bar": ["true", "false"],
    "trainer.fast_dev_run": ["true", "2"],
    "trainer.profiler": ["simple", "slow"],
    "trainer.precision": ["32-true", "bf16-mixed", "64-true", "8"],
    "trainer.devices": ["1", "4000"],
    "trainer.accelerator": ["cpu", "gpu", "quantum"],
    "trainer.max_time": ["00:00:01:00", "00:02"],
    "trainer.val_check_interval": ["1", "0.5"],
    "model._target_": [
        "litdiffusion.nets.MPL",
        "os.system",
        "nowhere.Net",
        "torch.nn.Identity",
        "litdiffusion.nets",
        "''",
        ".",
    ],
    "sampler._target_": ["litdiffusion.diffusion.samplers.DDIM", "torch.load", "litdiffusion.codecs.Identity"],
    "dry_run": ["true"],
}
UNKNOWN = [
    "trainer.max_step=1",
    "+ema_decy=0.9",
    "modle=mlp",
    "+data.sise=5",
    "~schedule",
    "~seed",
    "nonsense",
    "=",
    "a=b=c",
]


class Verdict(NamedTuple):
    """Result of a case: "trained", "refused", "diverged", or the reason of the failure."""

    kind: str
    failed: bool
    output: str


def small(overrides: Sequence[str]) -> list[str]:
    """Overrides that make one step fast, for the keys that these choices have; the drawn overrides replace them."""
    chosen = dict(word.partition("=")[::2] for word in overrides)
    toy = chosen.get("data", "spiral") != "digits"
    net = {
        "unet": ["model.channels=[8]"],
        "source_unet": ["model.base_channels=8"],
        "dit": ["model.width=16", "model.depth=1"],
        "diffusers_dit": ["model.net.num_attention_heads=1", "model.net.num_layers=1"],
        "diffusers_unet": ["model.net.block_out_channels=[8,8]"],
    }
    return [
        *("callbacks=none", "logger=none", "trainer.max_steps=1", "trainer.val_check_interval=1", "data.batch_size=16"),
        *("trainer.enable_checkpointing=false", "trainer.accelerator=cpu", "lr_schedule=constant", "data.val_size=16"),
        *(["data.size=64"] if toy else []),
        *net.get(chosen.get("model", ""), []),
    ]


def choices(group: str) -> list[str]:
    """The choices of a group that this script can run."""
    names = (path.stem for path in sorted((CONF / group).glob("*.yaml")))
    return [name for name in names if name not in DOWNLOADED | SLOW]


def fits(key: str, groups: dict[str, str]) -> bool:
    """Whether the yaml of the group's choice has the key; ignores the choices of a recipe."""
    group, _, name = key.partition(".")
    choice = groups.get(group, DEFAULTS.get(group))
    if choice is None or name == "_target_" or group == "trainer":
        return True
    return f"{name}:" in (CONF / group / f"{choice}.yaml").read_text()


def draw(source: random.Random) -> list[str]:
    """The overrides of one case: up to two choices of groups, up to three values, sometimes an unknown key."""
    groups = {group: source.choice(choices(group)) for group in source.sample(GROUPS, source.choice([0, 1, 1, 2]))}
    if groups.get("data") == "digits" and source.random() < 0.8:
        groups["model"] = source.choice(["unet", "dit", "source_unet", "diffusers_unet", "diffusers_dit"])
    misspelt = {group: name[:-1] if source.random() < 0.03 else name for group, name in groups.items()}
    known = [key for key in sorted(VALUES) if source.random() < 0.03 or fits(key, groups)]
    keys = source.sample(known, source.choice([0, 1, 1, 2, 3]))
    values = {key: source.choice(ODD if source.random() < 0.25 else VALUES[key]) for key in keys}
    extra = [source.choice(UNKNOWN)] if source.random() < 0.05 else []
    return [*(f"{key}={value}" for key, value in (misspelt | values).items()), *extra]


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds of CPU time, or ten times as many without."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError

    clocks = {signal.SIGALRM: (signal.ITIMER_REAL, 10 * seconds), signal.SIGPROF: (signal.ITIMER_PROF, seconds)}
    before = {signum: signal.signal(signum, stop) for signum in clocks}
    for timer, limit in clocks.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for signum, (timer, _) in clocks.items():
            signal.setitimer(timer, 0)
            signal.signal(signum, before[signum])


def run(overrides: Sequence[str], folder: Path, limit: int) -> Verdict:
    """Runs one case like the command line, in the folder of this case."""
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    base = [word for word in small(overrides) if word.lstrip("+").partition("=")[0] not in given]
    sys.argv = ["train.py", f"hydra.run.dir={folder}", *base, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "0"
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with time_limit(limit):
                runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except TimeoutError:
            return Verdict(f"took more than {limit} s of CPU time, or {10 * limit} s", True, err.getvalue())
        except BaseException:  # everything that a user would see as a traceback
            return Verdict("traceback", True, traceback.format_exc(limit=-4))
    return judge(status, out.getvalue(), err.getvalue())


def judge(status: int, out: str, err: str) -> Verdict:
    """The verdict on a case that ended within its time limit."""
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("warning: ")]
    if "Traceback" in err:
        return Verdict("traceback", True, err)
    if status == 0:
        done = any(words in out for words in ("run folder: ", "plan of this run", "nothing was kept"))
        return Verdict("trained" if done else "status 0 without a run", not done, out + err)
    errors = [line for line in lines if line.startswith("error: ") and len(line) > len("error: ") + 5]
    if status not in (1, 2) or len(errors) != 1 or len(lines) != 1:
        return Verdict(f"status {status} with {len(lines)} lines", True, err)
    return Verdict("refused" if status == 2 else "diverged", False, errors[0])


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """A scratch folder as the working directory; restores it, ``sys.argv`` and the environment."""
    argv, here, env = sys.argv, os.getcwd(), dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            os.chdir(scratch)
            yield
        finally:
            os.chdir(here)
            sys.argv = argv
            os.environ.clear()
            os.environ.update(env)


def _save_time() -> None:
    """Leaves out what takes a third of a case's time and decides nothing."""
    from hydra._internal.hydra import Hydra

    yaml.SafeLoader = yaml.CSafeLoader  # the same yamls, read in C
    Hydra.get_mode = lambda self, **_: None  # composes a first time, to look for hydra.mode; None: not set


def play(seed: int, limit: int) -> Row:
    """The case of a seed, run in the working directory; prints it if it failed."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    overrides = draw(random.Random(seed))
    verdict = run(overrides, Path(str(seed)), limit)
    if verdict.failed:
        print(f"case {seed}: {verdict.kind}: {' '.join(overrides)}\n{verdict.output}", flush=True)
    return {**verdict._asdict(), "overrides": overrides}


def main() -> int:
    """Prints failures and counts; returns status 1 if there were failures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case")
    parser.add_argument("--limit", type=int, default=60, help="limit of a case in seconds of CPU time")
    parser.add_argument("--minutes", type=float, help="begin no case after this time")
    parser.add_argument("--results", type=Path, help="file of results; cases that it holds are not run again")
    parser.add_argument("--show", action="store_true", help="also print the line of every refused case")
    arguments = parser.parse_args()
    begin, seeds = time.monotonic(), range(arguments.seed, arguments.seed + arguments.cases)
    results = arguments.results and arguments.results.absolute()
    with command_line():
        _save_time()
        rows = play_chunk(seeds, lambda seed: play(seed, arguments.limit), results, arguments.minutes)
    if arguments.show:
        for row in rows:
            if row["kind"] in ("refused", "diverged"):
                print(f"{' '.join(row['overrides'])}\n    {row['output']}")
    failed = sum(row["failed"] for row in rows)
    kinds = Counter(row["kind"] for row in rows).most_common()
    figures = ", ".join(f"{count} {kind}" for kind, count in kinds)
    minutes = (time.monotonic() - begin) / 60
    print(f"{len(rows)} cases: {figures}; {failed} failures; this call took {minutes:.1f} minutes")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
