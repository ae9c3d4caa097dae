"""Tests that a run loses no work if it is killed, damaged or out of disk: ``python scripts/torture.py kills``.

Every command prints a line of results and exits with status 1 if one of them is wrong.
"""

import argparse
import contextlib
import copy
import csv
import functools
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.record import read_record
from litdiffusion.training.checkpoints import newest_checkpoint, read_checkpoint

ROOT = Path(__file__).parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SMALL = (
    *("data=moons", "data.size=600", "data.val_size=200", "data.batch_size=50", "model.hidden=16", "schedule.steps=50"),
    *("trainer.accelerator=cpu", "trainer.max_steps=600", "trainer.val_check_interval=60"),
    *("trainer.log_every_n_steps=20", "save_every=30", "lr_schedule.warmup_steps=0", "threads=1"),
    *("callbacks.progress_bar=null", "callbacks.forward_process=null", "callbacks.field=null"),
    *("callbacks.trajectory=null", "callbacks.live_likelihood=null", "callbacks.live_quality.max_share=null"),
    *("callbacks.live_quality.samples=50", "callbacks.live_quality.steps=5"),
    *("callbacks.final_samples.points=50", "callbacks.final_samples.steps=5"),
)
"""A run of a few seconds with all kinds of randomness; ``max_share`` is off because it depends on the clock."""


def run_once(folder: Path, overrides: tuple[str, ...] = SMALL) -> int:
    """Trains in this process like the command line; returns the exit status."""
    try:
        train(copy.deepcopy(_composed(overrides)), Run(folder, "torture", overrides=overrides))
    except (UserError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@functools.cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def in_child(action: Callable[[], int], log: Path) -> int:
    """Runs ``action`` in a forked process, which need not import torch again; returns the process id."""
    child = os.fork()
    if child:
        return child
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os._exit(action())
    finally:
        os._exit(99)


def exit_status(child: int) -> int:
    """Waits for a child; returns its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fingerprint(folder: Path) -> str:
    """sha256 of a run's results: weights, EMA, optimizer, rows of metrics.csv without times, samples."""
    digest = hashlib.sha256()
    content = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    tensors = dict(content["state_dict"])
    for key, state in content["optimizer_states"][0]["state"].items():
        tensors |= {f"optimizer.{key}.{name}": value for name, value in state.items()}
    for name in sorted(tensors):
        digest.update(name.encode() + torch.as_tensor(tensors[name]).numpy().tobytes())
    for row in rows(folder):
        digest.update(repr(row).encode())
    samples = folder / "pictures" / "samples.png"
    digest.update(samples.read_bytes() if samples.exists() else b"")
    return digest.hexdigest()


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without the columns ``time/...``."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def kills(folder: Path, count: int, seed: int = 0, overrides: tuple[str, ...] = SMALL) -> bool:
    """Kills runs at random moments, restarts each until it is complete, and compares all with an undisturbed run."""
    chance, log = random.Random(seed), folder / "log.txt"
    began = time.monotonic()
    assert exit_status(in_child(lambda: run_once(folder / "whole", overrides), log)) == 0, log.read_text()
    lasts, expected = time.monotonic() - began, fingerprint(folder / "whole")
    done, equal, complete, sent = 0, 0, 0, dict.fromkeys(SIGNALS, 0)
    while done < count:
        target = folder / f"killed_{complete}"
        while (record := read_record(target)) is None or record.status != "complete":
            child = in_child(lambda to=target: run_once(to, overrides), log)
            if done < count:
                time.sleep(chance.uniform(0.1, 0.7) * lasts)
                signum = chance.choice(SIGNALS)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signum)
                status = exit_status(child)
                if status != 0:  # 0: the run was complete before the signal
                    done, sent[signum] = done + 1, sent[signum] + 1
            else:
                assert exit_status(child) == 0, log.read_text()[-2000:]
        complete += 1
        equal += fingerprint(target) == expected
    signals = ", ".join(f"{number} {signum.name}" for signum, number in sent.items())
    print(f"kills: {done} ({signals}); {equal} of {complete} runs end equal to the undisturbed run of {lasts:.1f} s")
    return equal == complete


def damage(folder: Path, count: int, seed: int = 0, overrides: tuple[str, ...] = SMALL) -> bool:
    """Truncates a checkpoint or flips one bit at a random place; the damage must be detected and previous.ckpt used."""
    assert exit_status(in_child(lambda: run_once(folder / "run", overrides), folder / "log.txt")) == 0
    checkpoints, chance = folder / "run" / "checkpoints", random.Random(seed)
    last = (checkpoints / "last.ckpt").read_bytes()
    found = used = 0
    for trial in range(count):
        broken = bytearray(last)
        place = chance.randrange(len(last))
        if trial % 2:
            broken[place] ^= 1 << chance.randrange(8)
        else:
            del broken[place:]
        (checkpoints / "last.ckpt").write_bytes(broken)
        try:
            read_checkpoint(checkpoints / "last.ckpt")
        except UserError:
            found += 1
        path, _ = newest_checkpoint(checkpoints, usable=bool)
        used += path is not None and path.name == "previous.ckpt"
    (checkpoints / "last.ckpt").write_bytes(last)
    print(f"damage: {found} of {count} broken checkpoints detected; previous.ckpt used {used} times")
    return found == used == count


def disk(folder: Path, overrides: tuple[str, ...] = SMALL) -> bool:
    """Limits files to half a checkpoint, like a full disk; all files saved before must stay intact."""
    log, target = folder / "log.txt", folder / "run"
    assert exit_status(in_child(lambda: run_once(folder / "whole", overrides), log)) == 0
    child = in_child(lambda: run_once(target, overrides), log)
    while not (target / "checkpoints" / "previous.ckpt").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    exit_status(child)
    before = {path.name: path.read_bytes() for path in (target / "checkpoints").glob("*.ckpt")}
    size = len(before["last.ckpt"])

    def full() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        return run_once(target, overrides)

    status = exit_status(in_child(full, log))
    after = {path.name: path.read_bytes() for path in (target / "checkpoints").glob("*.ckpt")}
    kept = all(after.get(name) == content for name, content in before.items())
    line = log.read_text().strip().splitlines()[-1]
    again = exit_status(in_child(lambda: run_once(target, overrides), log))
    equal = again == 0 and fingerprint(target) == fingerprint(folder / "whole")
    print(f"disk: full: status {status}, {len(before)} of {len(before)} files as before: {kept}; {line}")
    print(f"disk: without the limit the run ends equal to the undisturbed run: {equal}")
    return status == 1 and kept and equal


def gloo(folder: Path, victim: int, limit: float = 120.0) -> bool:
    """Kills one of two processes; the other must end in time, and a restart must end with equal results."""
    words = [word for word in SMALL if not word.startswith("trainer.accelerator")]
    words += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "callbacks.live_quality=null"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    log = (folder / "log.txt").open("a")

    def started(name: str) -> subprocess.Popen:
        return subprocess.Popen([*command, f"name={name}"], cwd=folder, stdout=log, stderr=log)

    assert started("whole").wait() == 0
    lead = started("killed")
    saved = folder / "outputs" / "killed" / "checkpoints" / "last.ckpt"
    while not saved.exists():
        time.sleep(0.05)
    others = subprocess.run(["pgrep", "-P", str(lead.pid)], capture_output=True, text=True, check=True).stdout.split()
    killed, left = (lead.pid, int(others[0])) if victim == 0 else (int(others[0]), lead.pid)
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    while _alive(left) and time.monotonic() - began < limit:
        lead.poll()
        time.sleep(0.05)
    seconds, ended = time.monotonic() - began, not _alive(left)
    lead.wait()
    again = started("killed").wait()
    equal = again == 0 and fingerprint(folder / "outputs/killed") == fingerprint(folder / "outputs/whole")
    print(f"gloo: process {victim} killed, the other ended after {seconds:.1f} s: {ended}; restart equal: {equal}")
    return ended and equal


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", choices=["kills", "damage", "disk", "gloo"])
    parser.add_argument("--count", type=int, default=None, help="kills: 50; damage: 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the folder of the runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    trials: dict[str, Callable[[], bool]] = {
        "kills": lambda: kills(folder, args.count or 50, args.seed),
        "damage": lambda: damage(folder, args.count or 20, args.seed),
        "disk": lambda: disk(folder),
        "gloo": lambda: min(gloo(_make_folder(folder / str(victim)), victim) for victim in (0, 1)),
    }
    good = trials[args.trial]()
    if args.keep or not good:
        print(f"runs: {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(0 if good else 1)


def _make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
