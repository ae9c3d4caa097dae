"""The command line: plain help, one line for bad input, and nothing heavy before the config stands."""

import os
import re
import subprocess
import sys

import pytest
from conftest import CONF, FEW_STATES, ROOT, TINY
from fakes import write_mnist


def one_error(status: int, err: str) -> str:
    """The one line that a refused command prints."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert status == 2, err
    assert "Traceback" not in err
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["model=unett"], "model=unett is not known; did you mean unet?"),
        (["modle=unet"], "there is no group or key modle; did you mean model?"),
        (["trainer.max_step=5"], "there is no group or key trainer.max_step; did you mean trainer.max_steps?"),
        (["experiment=toy_spirale"], "did you mean toy_spiral?"),
        (["+schedule.stepps=5"], "schedule.stepps is not an argument of LinearChain; did you mean steps?"),
        (["schedule.steps=1"], "schedule.steps must be at least 2 and whole, got 1"),
        (["schedule.steps=many"], "schedule.steps='many' has the wrong type"),
        (["schedule.beta_end=1.5"], "schedule.beta_end must lie strictly between 0 and 1, got 1.5"),
        (["schedule.steps=10"], "take schedule=cosine"),
        (["times=logit_normal", "times.mean=nan"], "times.mean must be a number, got nan"),
        (["optimizer.betas=[0.9,nan]"], "optimizer.betas.1 must be a number, got nan"),
        (["model=unet"], "model=unet needs image data"),
        (["data.batch_size=20000"], "data.batch_size=20000"),
        (["data.batch_size=0"], "data.batch_size=0"),
        (["trainer.max_steps=0"], "trainer.max_steps must be a whole number of at least 1, or -1"),
        (["metric=${seed}"], "metric must be the name of a number, such as val/loss, got 0"),
        (["trainer.max_epochs=nan"], "trainer.max_epochs must be a whole number, or null; -1 has no limit, got nan"),
        (["trainer.max_epochs=[]"], "trainer.max_epochs must be a whole number, or null; -1 has no limit, got []"),
        (["trainer.max_steps=abc"], "trainer.max_steps must be a whole number of at least 1, or -1"),
        (["trainer.accelerator=gpu"], "trainer: "),
        (["trainer.devices=4000"], "trainer.devices=4000 is more than the"),
        (["trainer.max_time=00:02"], "trainer: `Timer(duration='00:02')` is not a valid duration"),
        (["trainer.precision=7"], "trainer: Precision 7 is invalid"),
        (["metric=val_loss"], "metric must be one of val/loss"),
        (["trainer.gradient_clip_val=abc"], "trainer: `gradient_clip_val` should be an int or a float. Got abc."),
        (["gradient_clip=1"], "there is no group or key gradient_clip; did you mean trainer.gradient_clip_val?"),
        (["seed=-1"], "seed must be a whole number of at least 0, got -1"),
        (["callbacks.trajectory.every_n_steps=10.5"], "callbacks.trajectory.every_n_steps must be a whole number"),
        (["trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches must be a whole number of at least 1"),
        (["model=unet", "data=digits", "model.chanels=[48]"], "did you mean model.channels?"),
        (["trainer.accelerator=tpuu"], "trainer:"),
        (["sampler.steps=5000"], "sampler steps = 5000 must lie in 1..1000"),
        (["sampler=ddim", "sampler.eta=2"], "sampler.eta must lie in [0, 1]"),
        (["weighting=min_snr", "weighting.gamma=-1"], "weighting.gamma must be positive, got -1"),
        (["trainer.precision=16-mixed"], "set optimizer.fused=false"),
        (["ema_decay=1.5"], "ema_decay must be a number in [0, 1); 0.999 is usual, 0 is none, got 1.5"),
        (["model._target_=nowhere.Net"], "model._target_=nowhere.Net cannot be imported"),
        (["ckpt_path=nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        (["callbacks.trajectory.weights=emma"], "callbacks.trajectory.weights must be ema or raw, got 'emma'"),
        (["hydra.run.dir=/proc/nowhere"], "/proc/nowhere cannot be written"),
        (["data=image_folder", "data.path=nowhere"], "nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_ends_in_one_line(args, message, command, tmp_path):
    status, _, err = command(
        "train.py", *args, *(a for a in TINY if a.split("=")[0] not in {x.split("=")[0] for x in args})
    )
    assert message in one_error(status, err)


def test_missing_and_damaged_mnist_are_named(command, tmp_path, monkeypatch):
    monkeypatch.setenv("LITDIFFUSION_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    status, _, err = command("train.py", "data=mnist", "model=unet")
    line = one_error(status, err)
    assert "train-images-idx3-ubyte" in line
    assert "data=digits" in line
    write_mnist(tmp_path / "data")
    images = tmp_path / "data/MNIST/raw/train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    status, _, err = command("train.py", "data=mnist", "model=unet")
    assert "damaged" in one_error(status, err)


def test_a_run_prints_where_its_results_lie(command):
    small = ["data.size=600", "callbacks.final_samples.points=100", "schedule.steps=50"]
    status, out, err = command("train.py", *TINY, *FEW_STATES, *small)
    assert status == 0, err
    folder = re.search(r"run folder: (\S+)", out).group(1)
    assert os.path.isfile(f"{folder}/pictures/samples.png")
    assert os.path.isfile(re.search(r"checkpoint: (\S+)", out).group(1))
    assert os.path.isfile(f"{folder}/metrics.csv")
    assert "trajectories: 1 pictures" in out


def test_a_full_disk_is_told_while_hydra_writes_its_files(command, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")  # without a name, like that of write()

    monkeypatch.setattr("omegaconf.OmegaConf.to_yaml", full)
    status, _, err = command("train.py", *TINY)
    line = one_error(status, err)
    assert "a file in the run's folder cannot be written (No space left on device); free some space" in line


def test_a_folder_that_holds_a_run_is_refused(command, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.csv").write_text("step\n1\n")
    status, _, err = command("train.py", *TINY, f"hydra.run.dir={tmp_path}/old")
    assert "already holds a run" in one_error(status, err)
    assert (tmp_path / "old" / "metrics.csv").read_text() == "step\n1\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give a checkpoint"),
        (["ckpt=nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        (["steps=abc"], "steps must be a whole number of at least 1, got 'abc'"),
        (["steps=2000"], "sampler steps = 2000 must lie in 1..25"),
        (["seed=abc"], "seed must be a whole number of at least 0, got 'abc'"),
        (["n=0"], "n must be a whole number of at least 1, got 0"),
        (["device=foo"], "device=foo is not available here"),
        (["weights=emma"], "weights must be one of ema, raw, got 'emma'"),
        (["sampler=dimd"], "sampler=dimd is not known; did you mean ddim?"),
        (["out=/proc/nowhere"], "the folder /proc/nowhere cannot be made"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else "",
)
def test_bad_sampling_ends_in_one_line(args, message, command, finished, tmp_path):
    given = args and not args[0].startswith("ckpt")
    ckpt = [f"ckpt={finished}/checkpoints/last.ckpt"] if given else []
    status, _, err = command("scripts/sample.py", *ckpt, *args)
    assert message in one_error(status, err)
    assert not (tmp_path / "sample.log").exists()


def test_samples_are_never_overwritten(command, finished, tmp_path):
    arguments = [f"ckpt={finished}/checkpoints/last.ckpt", "n=2", f"out={tmp_path}/drawn"]
    assert command("scripts/sample.py", *arguments)[0] == 0
    status, _, err = command("scripts/sample.py", *arguments)
    assert "already holds samples" in one_error(status, err)


def test_multirun_goes_on_after_a_bad_job(command, tmp_path):
    status, out, err = command(
        "train.py", "-m", "schedule.steps=1,100", *TINY, "callbacks=none", "logger=none", "data.size=600"
    )
    assert status == 2
    assert "schedule.steps must be at least 2 and whole, got 1" in err
    assert out.count("run folder") == 1  # the second job ran
    assert "Traceback" not in err


def test_help_names_every_group_and_answers_without_torch():
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'lightning', 'wandb', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "heavy: []" in result.stdout
    groups = {str(path.relative_to(CONF)) for path in CONF.rglob("*") if any(path.glob("*.yaml"))}
    for group in groups - {"mask", "inpainting"}:  # these two belong to scripts/inpaint.py
        assert f"\n{group}: " in result.stdout
    assert "mnist_source" in result.stdout


def test_sampling_help_lists_its_values(command):
    status, out, _ = command("scripts/sample.py", "--help")
    assert status == 0
    assert "sampler: ancestral, annealed_langevin, ddim, dpm_solver, euler, " in out
    assert "batch_size: 256" in out


def test_two_runs_in_the_same_second_do_not_share_a_folder():
    text = (CONF / "train.yaml").read_text()
    assert text.count("${pid:}") == 2
