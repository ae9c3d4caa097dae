"""Kills a sweep of 12 jobs, of which 4 diverge, three times with SIGKILL: ``python scripts/torture_sweep.py``.

Exits with status 1 if a job is missing, a complete job was run again, or a failure was not recorded.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = Path(__file__).parent.parent / "train.py"
SWEEP = ("seed=1,2,3,4", "optimizer.lr=1e-3,2e-3,1e30", "sweep=torture", "retries=9")
SMALL = (
    "trainer.val_check_interval=100",
    "trainer.accelerator=cpu",
    "data.size=600",
    "schedule.steps=50",
    "logger=csv",
    *(f"callbacks.{name}=null" for name in ("trajectory", "forward_process", "field", "final_samples", "progress_bar")),
    *(f"callbacks.{name}=null" for name in ("live_quality", "live_likelihood")),
)
Records = dict[str, dict]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each job")
    parser.add_argument("--launcher", default="basic", help="hydra/launcher of the sweep")
    arguments = parser.parse_args()
    words = [f"hydra/launcher={arguments.launcher}", f"trainer.max_steps={arguments.steps}"]
    with tempfile.TemporaryDirectory() as home:
        faults = torture(Path(home), arguments.kills, random.Random(arguments.seed), words)
    print("\n".join(f"FAULT: {fault}" for fault in faults) or "no fault found")
    sys.exit(bool(faults))


def torture(home: Path, kills: int, chance: random.Random, words: list[str]) -> list[str]:
    """Kills the sweep at random moments, runs it to its end, and returns the faults."""
    folder, faults, begin = home / "outputs/sweeps/torture", [], time.perf_counter()
    done: Records = {}
    for kill in range(kills):
        _kill_after(_start(home, words), folder, 1 + kill * 6 // kills, chance.uniform(0, 3))
        now = _records(folder)
        faults += [f"{name} was touched after it was complete" for name in done if now[name] != done[name]]
        done = _of_status(now, "complete")
        cut = [
            f"{_varied_overrides(record)} at step {record['step']}" for record in _of_status(now, "running").values()
        ]
        what = ", ".join(cut) or "between two jobs"
        print(f"kill {kill + 1}: {len(done)} of 12 complete, {len(now)} begun; cut: {what}", flush=True)
    status = _start(home, words).wait()
    now = _records(folder)
    faults += [f"{name} was touched after it was complete" for name in done if now[name] != done[name]]
    return faults + _verdict(folder, now, status, time.perf_counter() - begin)


def _verdict(folder: Path, now: Records, status: int, seconds: float) -> list[str]:
    with (folder / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    complete, failed = _of_status(now, "complete"), _of_status(now, "failed")
    resumed = sum(record["attempts"] > 1 for record in complete.values())
    print(
        f"end: {len(rows)} rows, {len(complete)} complete ({resumed} of them resumed), {len(failed)} failed and kept, "
        f"exit status {status}, {seconds:.0f} s"
    )
    checks = {
        f"{len(rows)} rows instead of 12": len(rows) == len(now) == 12,
        f"{len(complete)} jobs complete instead of 8": len(complete) == 8,
        f"{len(failed)} failures kept instead of 4": len(failed) == 4,
        "a failure without its reason": all("non-finite" in record["error"] for record in failed.values()),
        "a complete job without its number": all("val/loss" in record["metrics"] for record in complete.values()),
        f"exit status {status} instead of 1": status == 1,
    }
    return [fault for fault, right in checks.items() if not right]


def _start(home: Path, words: list[str]) -> subprocess.Popen:
    command = [sys.executable, str(TRAIN), "-m", *SWEEP, *SMALL, *words]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    log = (home / "log.txt").open("a")
    return subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)


def _kill_after(process: subprocess.Popen, folder: Path, complete: int, delay: float) -> None:
    """Kills the sweep and its workers ``delay`` s after ``complete`` jobs are complete and another one has begun."""
    while process.poll() is None and not _ready_to_kill(_records(folder), complete):
        time.sleep(0.05)
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _records(folder: Path) -> Records:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/run.json"))}


def _ready_to_kill(records: Records, complete: int) -> bool:
    under_way = any(record["step"] > 0 for record in _of_status(records, "running").values())
    return under_way and len(_of_status(records, "complete")) >= complete


def _varied_overrides(record: dict) -> str:
    return " ".join(word for word in record["overrides"] if word.startswith(("seed=", "optimizer.lr=")))


def _of_status(records: Records, status: str) -> Records:
    return {name: record for name, record in records.items() if record["status"] == status}


if __name__ == "__main__":
    main()
