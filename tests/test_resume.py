"""Nothing is lost: runs that are stopped, killed or damaged end as if they had been left alone."""

import csv
import json
import os
import re
import shutil
import signal
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, composed
from lottery.outcome import fingerprint

from litdiffusion.build import Run
from litdiffusion.callbacks import Interrupts, Stopped
from litdiffusion.callbacks.last_checkpoint import LastCheckpoint
from litdiffusion.commands.training import train
from litdiffusion.config.identity import action_for, changes
from litdiffusion.config.public import plain_config
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.files import fresh, write_atomically
from litdiffusion.runs.log import Rows, keep_rows
from litdiffusion.runs.record import RunRecord, locked, read_record, write_record
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import newest_checkpoint, read_checkpoint

QUICK = (
    *("data=moons", "data.size=600", "data.val_size=200", "data.batch_size=50", "model.hidden=16", "schedule.steps=50"),
    *("trainer.accelerator=cpu", "trainer.max_steps=40", "trainer.val_check_interval=12"),
    *(
        "trainer.log_every_n_steps=8",
        "save_every=4",
        "lr_schedule.warmup_steps=0",
        "threads=1",
        "metrics=none",
        "callbacks.live_quality=null",
    ),
    *("callbacks.progress_bar=null", "callbacks.forward_process=null", "callbacks.field=null"),
    *("callbacks.trajectory=null", "callbacks.live_likelihood=null", "callbacks.final_samples=null"),
)


def run_once(folder: Path, overrides: tuple[str, ...]) -> int:
    """Trains in this process like the command line; returns the exit status."""
    try:
        train(composed(*overrides), Run(folder, "torture", overrides=overrides))
    except (UserError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_once(folder / "run", QUICK) == 0
    return folder / "run"


@pytest.fixture
def stopping(monkeypatch):
    """Makes a hook of the module raise a signal in this process at a step, once."""

    def at(step: int, signum: int = signal.SIGTERM, hook: str = "training_step") -> None:
        honest, sent = getattr(DiffusionModule, hook), []

        def hooked(self, *args, **kwargs):
            if self.global_step == step and not sent:
                sent.append(step)
                signal.raise_signal(signum)
            return honest(self, *args, **kwargs)

        monkeypatch.setattr(DiffusionModule, hook, hooked)

    return at


@pytest.mark.parametrize(
    ("step", "signum", "hook", "saved"),
    [
        (5, signal.SIGTERM, "training_step", 6),  # the step is finished first
        (10, signal.SIGINT, "training_step", 11),
        (11, signal.SIGINT, "training_step", 11),  # the validation after this step is left at once, and done again
        (12, signal.SIGTERM, "validation_step", 11),  # in the middle of it
        (40, signal.SIGINT, "validation_step", 39),  # in the last one
    ],
)
def test_a_signal_stops_between_steps_and_the_same_command_ends_equal(
    step, signum, hook, saved, stopping, whole, tmp_path, capfd
):
    stopping(step, signum, hook)
    assert run_once(tmp_path / "run", QUICK) == 128 + signum
    assert read_record(tmp_path / "run").status == "stopped"
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"] == saved
    assert f"stopped by {signal.Signals(signum).name}. Last good checkpoint" in capfd.readouterr().out
    assert run_once(tmp_path / "run", QUICK) == 0
    assert f"from step {saved} (attempt 2)" in capfd.readouterr().out
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert read_record(tmp_path / "run").metrics == read_record(whole).metrics


def test_a_signal_while_the_checkpoint_is_looked_for_stops_the_run_too(tmp_path, monkeypatch, capfd):
    def looked_for(*_):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("litdiffusion.commands.training.checkpoint_to_start_from", looked_for)
    assert run_once(tmp_path / "run", QUICK) == 143
    assert "stopped by SIGTERM. No checkpoint was written yet" in capfd.readouterr().out


@pytest.mark.parametrize(("met", "status"), [(False, 143), (True, 0)])
def test_a_process_that_leaves_before_the_others_have_met_it_is_no_success(met, status, tmp_path, monkeypatch):
    """The first process would wait for it for half an hour; launchers end it when they see the status."""

    def looked_for(experiment, *_):
        experiment.interrupts.shared = met
        signal.raise_signal(signal.SIGTERM)
        experiment.interrupts.on_train_end(None, None)
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("litdiffusion.commands.training.checkpoint_to_start_from", looked_for)
    monkeypatch.setattr("litdiffusion.commands.training.rank_zero_only.rank", 1)
    assert run_once(tmp_path / "run", QUICK) == status


VARIANTS = {
    "accumulation": ("trainer.accumulate_grad_batches=5", "trainer.val_check_interval=7", "trainer.max_steps=8"),
    "epochs": (
        *("trainer.max_steps=-1", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "lr_schedule=constant"),
        "+callbacks.rate={_target_: lightning.pytorch.callbacks.LearningRateMonitor}",
    ),
    "half epochs": ("trainer.max_epochs=2", "trainer.val_check_interval=0.5", "trainer.accumulate_grad_batches=2"),
    "adaptive": ("times=loss_aware", "times.bins=4", "times.warmup=1", "trainer.max_steps=14"),
    "variance": ("objective=hybrid", "sampler.variance=learned", "trainer.max_steps=14"),
    "one batch": ("trainer.overfit_batches=2", "trainer.max_steps=9", "trainer.val_check_interval=3"),
    "images": (
        *("data=digits", "model=unet", "model.channels=[8]", "model.blocks=1", "conditional=true"),
        *("data.batch_size=20", "data.val_size=60", "trainer.max_steps=7", "trainer.val_check_interval=3"),
        "trainer.limit_train_batches=4",
    ),
}


PLAYED = ("accumulation", "epochs", "half epochs", "one batch", "variance")
"""Variants that the lottery of ``make check`` plays too, or that hardly differ from these."""


@pytest.mark.parametrize(
    "options",
    [pytest.param(words, id=name, marks=[pytest.mark.slow] * (name in PLAYED)) for name, words in VARIANTS.items()],
)
def test_every_kind_of_run_ends_equal_wherever_it_stopped(options, stopping, tmp_path):
    """Inside an epoch, in its last batch, inside a window of accumulated gradients, in a validation."""
    other = any(word.startswith("data=") for word in options)
    words = tuple(word for word in QUICK if not (other and word.startswith(("data", "model")))) + options
    assert run_once(tmp_path / "whole", words) == 0
    expected = fingerprint(tmp_path / "whole")
    steps = read_record(tmp_path / "whole").step
    moments = (
        *((steps // 2, "training_step"), (steps // 3, "optimizer_step"), (steps, "validation_step")),
        *((steps - 1, "training_step"), (steps, "on_train_end")),
    )
    for k, (step, hook) in enumerate(moments):
        stopping(step, signal.SIGTERM, hook)
        target = tmp_path / str(k)
        assert run_once(target, words) == 143
        assert run_once(target, words) == 0
        assert fingerprint(target) == expected, (step, hook)
    assert any((tmp_path / "whole").glob("checkpoints/best_*"))


@pytest.mark.parametrize("moment", ["write", "keep", "replace"])
def test_a_power_cut_while_a_checkpoint_is_written_leaves_a_whole_one(moment, tmp_path, monkeypatch, whole):
    """Each of the three moments in which the disk can be found: half a file, no last one, two names for old and new."""
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    first = (whole / "checkpoints" / "previous.ckpt").read_bytes()
    (checkpoints / "last.ckpt").write_bytes(first)

    class PowerCut(BaseException):
        pass

    def cut(*args):
        raise PowerCut

    real, calls = os.replace, []

    def replace(a, b):
        calls.append(b)
        if len(calls) == {"keep": 1, "replace": 2}.get(moment):
            raise PowerCut
        real(a, b)

    monkeypatch.setattr("litdiffusion.runs.files.os.replace", replace)
    if moment == "write":
        monkeypatch.setattr("litdiffusion.runs.files.os.fsync", cut)
    with pytest.raises(PowerCut):
        write_atomically(checkpoints / "last.ckpt", b"new", checkpoints / "previous.ckpt")
    path, lines = newest_checkpoint(checkpoints.parent, usable=bool)
    assert path.read_bytes() == first
    assert lines == []


def test_every_damage_is_noticed_and_the_checkpoint_before_it_used(whole, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    good = (whole / "checkpoints" / "last.ckpt").read_bytes()
    (checkpoints / "previous.ckpt").write_bytes((whole / "checkpoints" / "previous.ckpt").read_bytes())
    size = len(good)
    flips = [
        bytes([*good[:k], good[k] ^ 4, *good[k + 1 :]]) for k in (0, 99, size // 3, size // 2, size - 70, size - 1)
    ]
    for broken in [*flips, good[: size // 2], good[:-1], good[:-84], good[:10], b""]:
        (checkpoints / "last.ckpt").write_bytes(broken)
        path, lines = newest_checkpoint(checkpoints.parent, usable=bool)
        assert path.name == "previous.ckpt"
        assert len(lines) == 1
        assert "last.ckpt cannot be read" in lines[0]
        assert not (checkpoints / "last.ckpt").exists()
    assert (checkpoints / "last.ckpt.damaged").exists()
    assert zipfile.ZipFile(whole / "checkpoints" / "last.ckpt").testzip() is None  # sealed, it still is a zip archive


def test_a_run_goes_on_behind_a_damaged_checkpoint(whole, stopping, tmp_path, capfd):
    stopping(17)
    run_once(tmp_path / "run", QUICK)
    last = tmp_path / "run/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert run_once(tmp_path / "run", QUICK) == 0
    out = capfd.readouterr().out
    assert "renamed to last.ckpt.damaged, an older one is used" in out
    assert "from step 16 (attempt 2)" in out
    assert fingerprint(tmp_path / "run") == fingerprint(whole)


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_moved_run_keeps_its_best_checkpoints(how, stopping, tmp_path):
    """Also those of a callback of the user's, whose two best are steps before and after the move."""
    mine = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${derived.run_dir}/mine', monitor: %s}"
    words = (*QUICK, f"+callbacks.mine={mine % 'val/loss'}", "callbacks.best.mode=max", "+callbacks.best.save_top_k=2")
    assert run_once(tmp_path / "whole", words) == 0
    stopping(27)
    assert run_once(tmp_path / "run", words) == 143
    there = tmp_path / "elsewhere" / "run"
    shutil.copytree(tmp_path / "run", there)
    if how == "moved":
        shutil.rmtree(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.ckpt")}
    assert run_once(there, words) == 0
    assert fingerprint(there) == fingerprint(tmp_path / "whole")
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*.ckpt")) for run in (there, tmp_path / "whole")]
    assert names[0] == names[1]
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_goes_on_from_its_best_checkpoint_ends_equal(whole, stopping, tmp_path):
    """Because the others are lost; and it removes the file when a later one is better."""
    stopping(27)
    assert run_once(tmp_path / "run", QUICK) == 143
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / "run/checkpoints" / name).unlink()
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["best_step_000024.ckpt"]
    assert run_once(tmp_path / "run", QUICK) == 0
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (tmp_path / "run", whole)]
    assert names[0] == names[1]


def test_a_run_that_starts_from_another_one_has_best_checkpoints_of_its_own(whole, tmp_path):
    first = whole / "checkpoints/previous.ckpt"
    before = sorted(path.name for path in first.parent.iterdir())
    train(composed(*QUICK, f"ckpt_path={first}"), Run(tmp_path / "next"))
    assert [path.name for path in (tmp_path / "next/checkpoints").glob("best_*")] == ["best_step_000040.ckpt"]
    assert sorted(path.name for path in first.parent.iterdir()) == before


def test_a_full_disk_loses_nothing(whole, stopping, tmp_path, monkeypatch, capfd):
    stopping(17)
    run_once(tmp_path / "run", QUICK)
    before = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("litdiffusion.runs.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        patch.setattr("litdiffusion.commands.attempts.write_record", lambda *_: None)
        patch.setattr("litdiffusion.commands.training.keep_rows", lambda *_: None)
        assert run_once(tmp_path / "run", QUICK) == 1
    assert "metrics.csv cannot be written (No space left); free some space" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").iterdir()} == before
    assert run_once(tmp_path / "run", QUICK) == 0
    assert fingerprint(tmp_path / "run") == fingerprint(whole)


@pytest.mark.parametrize("word", ["optimizer.lr=0.02", "trainer.gradient_clip_val=0.3", "seed=7", "ema_decay=0.5"])
def test_a_checkpoint_of_another_run_is_refused_unless_it_is_named(word, stopping, tmp_path):
    for name, words in (("a", ()), ("b", (word,))):
        stopping(20, signal.SIGTERM, "training_step")
        assert run_once(tmp_path / name, (*QUICK, *words)) == 143
    shutil.copy(tmp_path / "b/checkpoints/last.ckpt", tmp_path / "a/checkpoints/last.ckpt")
    with pytest.raises(UserError, match=rf"last\.ckpt was trained with {word}, .* name the checkpoint by ckpt_path"):
        train(composed(*QUICK), Run(tmp_path / "a"))
    path = tmp_path / "b/checkpoints/last.ckpt"
    train(composed(*QUICK, f"ckpt_path={path}"), Run(tmp_path / "c"))
    assert read_record(tmp_path / "c").step == 40


def test_a_file_is_never_written_through_a_link(tmp_path):
    other, path = tmp_path / "other", tmp_path / "samples.npz"
    other.write_bytes(b"mine")
    for link in (path, tmp_path / f".samples.npz.{os.getpid()}.part"):
        link.symlink_to(other)
    write_atomically(path, b"samples")
    assert (path.is_symlink(), path.read_bytes(), other.read_bytes()) == (False, b"samples", b"mine")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "samples.npz"]


def test_a_complete_run_is_not_run_again_but_can_be_made_longer(whole, tmp_path, capfd):
    cfg = composed(*QUICK)
    before = (whole / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert train(cfg, Run(whole)) == read_record(whole).metrics["val/loss"]
    assert "is complete: 40 steps, val/loss" in capfd.readouterr().out
    assert (whole / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    config = plain_config(composed(*QUICK, "trainer.max_steps=44"))
    assert action_for(whole, config) == "resume"
    assert action_for(whole, plain_config(composed(*QUICK, "trainer.max_steps=8"))) == "complete"


def test_another_config_is_refused_with_its_differences(whole):
    cfg = composed(*QUICK, "optimizer.lr=0.5", "model.hidden=8", "logger=none", "callbacks.field=null", "name=other")
    with pytest.raises(UserError) as error:
        train(cfg, Run(whole))
    lines = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    assert lines == ["model.hidden: 16 -> 8", f"optimizer.lr: {composed().optimizer.lr} -> 0.5"]
    assert changes({"a": {"b": 1}, "logger": {"x": 1}}, {"a": {"b": 1, "new": None}, "logger": {}}) == []


def test_resume_false_starts_beside(tmp_path, whole):
    cfg = composed(*QUICK, "resume=false")
    before = (whole / "run.json").read_bytes()
    train(cfg, Run(whole))
    assert fingerprint(whole.with_name("run_2")) == fingerprint(whole)
    assert (whole / "run.json").read_bytes() == before
    assert fresh(whole).name == "run_3"


def test_other_hardware_is_no_refusal_but_a_warning_that_names_it(stopping, tmp_path, capfd):
    """Convolutions sum in another order with another number of threads: the weights then differ in the last digits."""
    run = tmp_path / "run"
    stopping(5)
    assert run_once(run, (*QUICK, "threads=1")) == 128 + signal.SIGTERM
    stopping(9)
    assert run_once(run, (*QUICK, "threads=auto")) == 128 + signal.SIGTERM  # 1 for vectors
    assert "warning" not in capfd.readouterr().out
    record = read_record(run)
    assert [entry["threads"] for entry in record.hardware] == [1, 1]
    now = record.hardware[-1]
    assert now["torch"] == torch.__version__
    other = {
        "devices": 2,
        "device": "NVIDIA X",
        "precision": "bf16-mixed",
        "cpu_capability": "NO AVX",
        "torch": "2.4.0",
    }
    write_record(run, replace(record, hardware=[*record.hardware, {**now, **other}]))
    assert run_once(run, (*QUICK, "threads=2")) == 0
    (line,) = (line for line in capfd.readouterr().out.splitlines() if line.startswith("warning"))
    changes = ", ".join(f"{name} {value} -> {now[name]}" for name, value in other.items())
    assert line.startswith(f"warning: other than in the attempt before: threads 1 -> 2, {changes}; the bits may differ")
    assert [entry["threads"] for entry in read_record(run).hardware] == [1, 1, 1, 2]
    assert action_for(run, plain_config(composed(*QUICK, "threads=7"))) == "complete"


def test_names_on_the_command_line(command, tmp_path):
    """The same command says that the run is complete; what it was started with is not overwritten."""
    args = [*TINY, "name=mine", "callbacks=none", "logger=none", "metrics=none", "data.size=600", "schedule.steps=50"]
    assert command("train.py", *args)[0] == 0
    status, out, _ = command("train.py", *args)
    assert status == 0
    assert "mine is complete: 4 steps" in out
    status, out, _ = command("train.py", *args, "resume=false")
    assert status == 0
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"mine", "mine_2"}
    status, _, err = command("train.py", *args, "optimizer.lr=0.5")
    assert status == 2
    assert "optimizer.lr: " in err
    hydra = tmp_path / "outputs/mine/.hydra"
    assert "lr=0.5" not in (hydra / "overrides.yaml").read_text()
    assert "lr=0.5" in (hydra / "attempt_3/overrides.yaml").read_text()
    status, _, err = command("train.py", "name=../out")
    assert status == 2
    assert "names a folder" in err


def test_a_record_survives_and_says_how_a_run_ended(tmp_path):
    record = RunRecord("running", {"a": 1}, ["a=1"], {"val/loss": 0.5}, 1.5, 2, 7, "abc", None)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert json.loads((tmp_path / "run.json").read_text())["wandb_id"] == "abc"
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"is not the record of a run .* take another name or hydra\.run\.dir$"):
        read_record(tmp_path)
    assert read_record(tmp_path / "nowhere") is None


def test_no_flipped_bit_of_a_record_is_read_as_a_number_or_a_setting(tmp_path):
    record = RunRecord("complete", {"a": 1.25, "b": "text"}, ["a=1.25"], {"val/loss": 0.5}, 1.5, 2, 7)
    write_record(tmp_path, record)
    path = tmp_path / "run.json"
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        for bit in (0, 3, 6):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            try:
                found = read_record(tmp_path)
            except UserError:
                refused += 1
            else:
                assert found == record  # white space, or the name of the checksum itself
    assert refused > 2.5 * len(whole)


def test_half_written_files_of_a_killed_attempt_are_removed(tmp_path, stopping):
    stopping(17)
    assert run_once(tmp_path / "run", QUICK) == 143
    for name in (".run.json.1.part", "checkpoints/.last.ckpt.1.part", "pictures/.samples.png.1.part"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_bytes(b"half")
    assert run_once(tmp_path / "run", QUICK) == 0
    assert not list((tmp_path / "run").rglob(".*.part"))


@pytest.mark.parametrize("lost", ["run.json", "run.json and last.ckpt"])
def test_a_run_that_lost_its_record_goes_on_as_its_error_says(lost, whole, stopping, tmp_path):
    stopping(17)
    assert run_once(tmp_path / "run", QUICK) == 143
    (tmp_path / "run/run.json").write_text("{")
    if "last" in lost:
        (tmp_path / "run/checkpoints/last.ckpt").unlink()
    with pytest.raises(UserError, match="is not the record of a run"):
        train(composed(*QUICK), Run(tmp_path / "run"))
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(UserError, match=r"already holds a run but no run\.json") as error:
        train(composed(*QUICK), Run(tmp_path / "run"))
    advice = re.search(r"ckpt_path=\S+", str(error.value))[0]
    assert run_once(tmp_path / "next", (*QUICK, advice)) == 0
    assert fingerprint(tmp_path / "next")["weights"] == fingerprint(whole)["weights"]
    assert fingerprint(tmp_path / "next")["optimizer"] == fingerprint(whole)["optimizer"]


def test_two_processes_never_train_in_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="by another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_rows_are_kept_to_the_last_one_that_counts(tmp_path):
    rows = Rows(str(tmp_path))
    for step in range(4):
        rows.log_metrics({"a": step} | ({"b": 0.5} if step == 2 else {}), step)
        rows.save()
    rows.sync()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3,")  # a kill inside a row
    keep_rows(tmp_path, 3)
    again = Rows(str(tmp_path))
    again.log_metrics({"a": 9}, 3)
    again.save()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        kept = [(row["step"], row["a"], row["b"]) for row in csv.DictReader(file)]
    assert kept == [("0", "0", ""), ("1", "1", ""), ("2", "2", "0.5"), ("3", "9", "")]
    keep_rows(tmp_path, 0)
    assert not (tmp_path / "metrics.csv").exists()


def test_a_signal_waits_for_the_end_of_the_batch_and_a_second_one_does_not(capfd):
    module = SimpleNamespace()
    trainer = SimpleNamespace(world_size=1)
    interrupts, before = Interrupts(), signal.getsignal(signal.SIGTERM)
    with interrupts.listening():
        interrupts.on_train_start(trainer, module)
        signal.raise_signal(signal.SIGTERM)
        assert "SIGTERM: stops after this step" in capfd.readouterr().err
        with pytest.raises(Stopped, match="SIGTERM"):
            interrupts.on_train_batch_start(trainer, module, None, 1)
    with interrupts.listening():
        interrupts.on_train_start(trainer, module)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_validation_is_left_at_once():
    module, trainer = SimpleNamespace(), SimpleNamespace(world_size=1)
    interrupts = Interrupts()
    with interrupts.listening():
        interrupts.on_train_start(trainer, module)
        interrupts.on_validation_start(trainer, module)
        with pytest.raises(Stopped, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
    with interrupts.listening():
        interrupts.on_train_start(trainer, module)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGTERM"):
            interrupts.on_validation_start(trainer, module)


def test_processes_that_work_together_stop_together():
    """A signal that one of them heard is agreed upon by all at the start of a batch, and nowhere else."""
    module = SimpleNamespace()
    heard = SimpleNamespace(reduce_boolean_decision=lambda stop, all: True)
    trainer = SimpleNamespace(world_size=2, strategy=heard)
    interrupts = Interrupts()
    with interrupts.listening():
        interrupts.on_train_start(trainer, module)
        interrupts.on_validation_start(trainer, module)
        signal.raise_signal(signal.SIGTERM)
        interrupts.on_validation_end(trainer, module)
        with pytest.raises(Stopped, match="SIGTERM"):
            interrupts.on_train_batch_start(trainer, module, None, 0)
    other = Interrupts()
    with other.listening():
        other.on_train_start(trainer, module)
        with pytest.raises(Stopped, match="SIGTERM"):  # although it heard nothing itself
            other.on_train_batch_start(trainer, module, None, 0)


def test_a_time_between_checkpoints_must_be_positive(tmp_path):
    with pytest.raises(UserError, match="must be positive, or null, got 0"):
        LastCheckpoint(tmp_path, 10, minutes=0)


def test_a_lost_process_and_a_full_disk_are_told_in_one_line():
    from litdiffusion.commands.attempts import known_failure

    lost = RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1\nmore")
    assert "another process of this run ended" in str(known_failure(lost, 2))
    assert known_failure(lost, 1) is None
    assert "x.ckpt cannot be written" in str(known_failure(OSError(28, "No space left on device", "x.ckpt"), 1))
    assert isinstance(known_failure(TrainingError("known"), 1), TrainingError)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-100])])
def test_a_best_checkpoint_that_is_damaged_or_gone_is_told_and_another_takes_its_place(stopping, tmp_path, harm, capfd):
    stopping(30)
    assert run_once(tmp_path / "run", QUICK) == 143
    (lost,) = (tmp_path / "run/checkpoints").glob("best_*.ckpt")
    harm(lost)
    assert run_once(tmp_path / "run", QUICK) == 0
    assert f"warning: {lost}, the best checkpoint so far, is damaged or gone" in capfd.readouterr().out
    (best,) = (tmp_path / "run/checkpoints").glob("best_*.ckpt")
    assert read_checkpoint(best)["global_step"] > 24


def test_a_run_that_another_process_has_made_longer_goes_on_from_its_end(whole, tmp_path, capfd):
    """The first of several processes writes the new length into the record before the others start."""
    shutil.copytree(whole, tmp_path / "run")
    words = (*QUICK, "trainer.max_steps=48")
    record = read_record(tmp_path / "run")
    config = plain_config(composed(*words))
    write_record(tmp_path / "run", replace(record, status="running", config=config))
    assert run_once(tmp_path / "run", words) == 0
    assert "from step 40 (attempt 2)" in capfd.readouterr().out


def test_a_shorter_length_never_touches_a_run(whole, tmp_path):
    """Neither a complete run, nor a stopped one that already has more steps than the new length."""
    files = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    shorter = ("trainer.max_steps=20", "trainer.max_steps=8", "trainer.max_steps=40")
    for words in shorter:
        assert action_for(whole, plain_config(composed(*QUICK, words))) == "complete"
    with pytest.raises(UserError, match=r"already has 3 epochs; raise trainer\.max_epochs above that"):
        train(composed(*QUICK, "trainer.max_steps=-1", "trainer.max_epochs=1"), Run(whole))
    assert {path: path.read_bytes() for path in files} == files
    record = read_record(whole)
    run = tmp_path / "stopped"
    shutil.copytree(whole, run)
    write_record(run, replace(record, status="stopped"))
    rows = (run / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=r"already has 40 steps; raise trainer\.max_steps above that"):
        train(composed(*QUICK, "trainer.max_steps=20"), Run(run))
    assert (run / "metrics.csv").read_bytes() == rows


@pytest.mark.parametrize(
    ("then", "now", "is_longer"),
    [
        ({"max_epochs": 20}, {"max_epochs": 10}, False),
        ({"max_epochs": 20}, {"max_epochs": 21}, True),
        ({"max_epochs": 20}, {"max_epochs": -1}, True),
        ({"max_epochs": -1}, {"max_epochs": 20}, False),
        ({"max_time": "00:01:00:00"}, {"max_time": "00:00:59:59"}, False),
        ({"max_time": "00:01:00:00"}, {"max_time": {"hours": 2}}, True),
        ({"max_time": {"minutes": 60}}, {"max_time": "00:01:00:00"}, False),
        ({"max_time": "00:01:00:00"}, {"max_time": None}, True),
    ],
)
def test_a_complete_run_is_made_longer_only_by_a_larger_limit(then, now, is_longer, tmp_path):
    write_record(tmp_path, RunRecord("complete", {"trainer": then}, step=3))
    assert action_for(tmp_path, {"trainer": now}) == ("resume" if is_longer else "complete")
    with pytest.raises(UserError, match="max_time must be DD:HH:MM:SS"):
        action_for(tmp_path, {"trainer": {"max_time": "an hour"}})
