"""What users of Lightning type works as in Lightning; what it does with a plain module is the right answer."""

import csv
import inspect
import pickle
import re
from collections import Counter
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import QUIET, composed
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from torch.utils.data import DataLoader, TensorDataset

from litdiffusion.build import Run, build
from litdiffusion.commands.training import train
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.record import read_record
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import read_checkpoint

CALLBACKS = "lightning.pytorch.callbacks."
SMALL = [
    *("data=moons", "data.size=330", "data.val_size=100", "data.batch_size=64", "model.hidden=16", "model.layers=1"),
    *("schedule.steps=40", "trainer.accelerator=cpu", "trainer.max_steps=8", "trainer.val_check_interval=4"),
    *("trainer.log_every_n_steps=2", "lr_schedule.warmup_steps=0", "metrics=none"),
    *(f"callbacks.{name}=null" for name in ("trajectory", "field", "forward_process", "final_samples")),
    *("callbacks.live_likelihood=null", "callbacks.live_quality=null", "callbacks.progress_bar=null"),
]
"""Five whole batches an epoch."""
BARE = [*(word for word in SMALL if not word.startswith("callbacks")), *QUIET]


def ran(folder: Path, *overrides: str) -> Path:
    """The folder of a run that the command line would have made with these words."""
    train(composed(*SMALL, *overrides), Run(folder / "run", overrides=overrides))
    return folder / "run"


def callback(name: str, **settings: object) -> str:
    """An override that adds a callback of Lightning's."""
    words = "".join(f", {key}: {value}" for key, value in settings.items())
    return f"+callbacks.added={{_target_: {CALLBACKS}{name}{words}}}"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Plain(L.LightningModule):
    """A module as Lightning's documentation writes it."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


class Recorder(L.Callback):
    """Notes every hook that is called while training goes on, with the step and the epoch."""

    SEEN = (
        *(
            "on_train_start",
            "on_train_epoch_start",
            "on_train_batch_start",
            "on_before_zero_grad",
            "on_before_backward",
        ),
        *("on_after_backward", "on_before_optimizer_step", "on_train_batch_end", "on_train_epoch_end", "on_train_end"),
    )

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.calls.append(("on_train_batch_end", trainer.global_step, trainer.current_epoch, batch_idx))
        self.losses.append(float(outputs["loss"]))


def _noting(name: str):
    def hook(self: Recorder, trainer: L.Trainer, *args: object) -> None:
        self.calls.append((name, trainer.global_step, trainer.current_epoch))

    return hook


for _name in Recorder.SEEN:
    if _name not in vars(Recorder):
        setattr(Recorder, _name, _noting(_name))

LENGTHS = {
    "steps": {"max_steps": 7},
    "epochs": {"max_epochs": 2, "max_steps": -1},
    "epochs before steps": {"max_epochs": 1, "max_steps": 9},
    "steps before epochs": {"max_epochs": 4, "max_steps": 7},
    "share of the batches": {"max_epochs": 2, "max_steps": -1, "limit_train_batches": 0.5},
    "three batches": {"max_epochs": 2, "max_steps": -1, "limit_train_batches": 3},
    "accumulation": {"max_epochs": 2, "max_steps": -1, "accumulate_grad_batches": 2},
    "overfitting": {"max_epochs": 3, "max_steps": -1, "overfit_batches": 1},
    "least": {"min_epochs": 1, "max_steps": 6},
    "fast": {"fast_dev_run": 2},
}


@pytest.mark.parametrize("settings", LENGTHS.values(), ids=LENGTHS)
def test_hooks_come_in_lightning_s_own_order_and_number(settings, tmp_path):
    """The same calls at the same steps and epochs as of a plain module with as many batches."""
    overrides = [f"trainer.{key}={value}" for key, value in settings.items()]
    ours = Recorder()
    run = Run(tmp_path / "run", overrides=tuple(overrides), extra_callbacks=(ours,))
    experiment = build(composed(*BARE, *overrides), run)
    experiment.trainer.fit(experiment.module, experiment.data)
    theirs = Recorder()
    loader = DataLoader(TensorDataset(torch.randn(330, 2)), batch_size=64, shuffle=True, drop_last=True)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(accelerator="cpu", devices=1, callbacks=[theirs], **quiet, **settings)
    trainer.fit(Plain(), loader, DataLoader(TensorDataset(torch.randn(100, 2)), batch_size=64))
    assert ours.calls == theirs.calls
    assert experiment.trainer.global_step == trainer.global_step
    assert experiment.trainer.current_epoch == trainer.current_epoch
    assert all(0 < loss < 10 for loss in ours.losses)
    calls = Counter(name for name, *_ in ours.calls)
    assert calls["on_before_optimizer_step"] == trainer.global_step
    assert calls["on_after_backward"] == calls["on_train_batch_end"] == len(ours.losses)


VALIDATIONS = {
    "every two epochs": ({"check_val_every_n_epoch": 2, "max_epochs": 5, "max_steps": -1}, [10, 20]),
    "every epoch": ({"check_val_every_n_epoch": 1, "max_epochs": 2, "max_steps": -1}, [5, 10]),
    "half epochs": ({"val_check_interval": 0.4, "max_epochs": 1, "max_steps": -1}, [2, 4, 5]),
    "batches of the run": ({"val_check_interval": 4, "max_steps": 11}, [4, 8, 11]),
    "batches of an epoch": ({"val_check_interval": 3, "check_val_every_n_epoch": 1, "max_steps": 10}, [3, 8, 10]),
    "none": ({"limit_val_batches": 0, "max_steps": 5}, []),
}


@pytest.mark.parametrize(("settings", "steps"), VALIDATIONS.values(), ids=VALIDATIONS)
def test_validations_count_epochs_or_batches_as_they_are_told(settings, steps, tmp_path):
    """And the last weights are validated too, but where the epochs decide that they are not."""
    folder = ran(tmp_path, *(f"trainer.{key}={value}" for key, value in settings.items()))
    assert [int(row["step"]) + 1 for row in rows(folder) if row.get("val/loss")] == steps


def test_overfit_batches_trains_on_the_items_of_one_batch(tmp_path):
    items: list[torch.Tensor] = []

    class Items(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            items.append(batch.data)

    overrides = ["trainer.overfit_batches=1", "trainer.max_steps=6"]
    experiment = build(composed(*BARE, *overrides), Run(tmp_path / "run", extra_callbacks=(Items(),)))
    experiment.trainer.fit(experiment.module, experiment.data)
    assert len(items) == 6
    assert len(torch.cat(items).unique(dim=0)) == 64


def test_fast_dev_run_leaves_nothing_and_blocks_nothing(tmp_path, capsys):
    words = ("trainer.fast_dev_run=2", "callbacks.final_samples={points: 20}")
    folder = tmp_path / "run"
    train(composed(*SMALL, words[0]), Run(folder, overrides=words))
    assert not folder.exists()
    assert "fast_dev_run: 2 steps trained and validated; nothing was kept" in capsys.readouterr().out
    ran(tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    train(composed(*SMALL, words[0]), Run(folder, overrides=words))
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    assert read_record(folder).step == 8


def test_switches_of_the_trainer_take_out_what_they_name(tmp_path, capfd):
    folder = ran(tmp_path, "trainer.enable_checkpointing=false")
    assert not (folder / "checkpoints").exists()
    assert read_record(folder).status == "complete"
    cfg = composed(*SMALL[:-1], "trainer.enable_progress_bar=false")
    train(cfg, Run(tmp_path / "bar"))
    assert "it/s" not in "".join(capfd.readouterr())
    cfg = composed(*SMALL, "trainer.barebones=true")
    train(cfg, Run(tmp_path / "bare"))
    assert read_record(tmp_path / "bare").step == 8
    assert not (tmp_path / "bare" / "checkpoints").exists()


def test_the_profiler_and_the_summary_print(tmp_path, caplog, capfd):
    ran(tmp_path, "trainer.profiler=simple", "trainer.enable_model_summary=true")
    out = caplog.text + "".join(capfd.readouterr())
    assert "run_training_batch" in out
    assert "Trainable params" in out


def test_a_part_in_the_place_of_any_argument_of_the_trainer_is_made(tmp_path):
    """Logger, profiler and strategy as ``_target_`` in the yaml, where Lightning takes an object."""
    folder = ran(
        tmp_path,
        f"trainer.profiler={{_target_: lightning.pytorch.profilers.SimpleProfiler, dirpath: {tmp_path}, filename: a}}",
        f"trainer.logger={{_target_: lightning.pytorch.loggers.CSVLogger, save_dir: {tmp_path}/mine, version: one}}",
        "trainer.strategy={_target_: lightning.pytorch.strategies.SingleDeviceStrategy, device: cpu}",
    )
    assert "run_training_batch" in (tmp_path / "fit-a.txt").read_text()
    assert "val/loss" in (tmp_path / "mine/lightning_logs/one/metrics.csv").read_text()
    assert "val/loss" in rows(folder)[-1]


def test_gradients_are_clipped_by_norm_and_by_value(tmp_path):
    norms: dict[str, float] = {}

    class Norm(L.Callback):
        def __init__(self, key: str):
            self.key = key

        def on_train_batch_end(self, trainer, pl_module, *args):
            gradients = [weight.grad for weight in pl_module.denoiser.parameters()]
            norms[self.key] = float(torch.nn.utils.get_total_norm(gradients))
            norms[f"{self.key} largest"] = max(float(gradient.abs().max()) for gradient in gradients)

    for key, words in {
        "norm": ["trainer.gradient_clip_val=0.01"],
        "value": ["trainer.gradient_clip_val=0.001", "trainer.gradient_clip_algorithm=value"],
        "free": ["trainer.gradient_clip_val=null"],
    }.items():
        experiment = build(composed(*BARE, *words), Run(tmp_path / key, extra_callbacks=(Norm(key),)))
        experiment.trainer.fit(experiment.module, experiment.data)
    assert norms["norm"] == pytest.approx(0.01, rel=1e-3)
    assert norms["value largest"] == pytest.approx(0.001, rel=1e-6)
    assert norms["free"] > 0.02


REFUSED = {
    "trainer.precision=7": "trainer: Precision 7 is invalid. Allowed precision values:",
    "trainer.strategy=bogus": "trainer: You selected an invalid strategy name",
    "trainer.gradient_clip_algorithm=bogus": "trainer: `gradient_clip_algorithm` bogus is invalid",
    "trainer.strategy=fsdp": "trainer: The strategy `fsdp` requires a GPU accelerator",
    "trainer.overfit_batches=0.5": "You requested to check 0.5 of the `val_dataloader`",
    "trainer.gradient_clip_val=nan": "trainer.gradient_clip_val must be a number, got nan",
    "trainer.gradient_clip_val=abc": "trainer: `gradient_clip_val` should be an int or a float. Got abc.",
    "trainer.max_steps=0": "trainer.max_steps must be a whole number of at least 1, or -1",
    "trainer.max_steps=abc": "trainer.max_steps must be a whole number of at least 1, or -1",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches must be a whole number of at least 1, got 0",
    callback("EarlyStopping", monitor="val_loss"): "monitor=val_loss is not logged by this run; did you mean val/loss",
    callback("ModelCheckpoint", monitor="loss"): "monitor=loss is not logged by this run",
    callback("StochasticWeightAveraging", swa_lrs=0.1): "SWA with `swa_epoch_start` as a float is not supported",
    callback("ModelCheckpoint", every_n_epochs=1, every_n_train_steps=1): "should be mutually exclusive",
}


FAST = {word: message for word, message in REFUSED.items() if word.startswith("trainer.")}


@pytest.mark.parametrize(
    ("word", "message", "fast"), [(*row, False) for row in REFUSED.items()] + [(*row, True) for row in FAST.items()]
)
def test_what_lightning_refuses_comes_in_one_line_before_the_first_step(word, message, fast, tmp_path):
    with pytest.raises(UserError) as error:
        ran(tmp_path, "data.val_size=64", *["trainer.fast_dev_run=2"] * fast, word)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    record = read_record(tmp_path / "run")
    assert record is None or (record.status, record.step) == ("failed", 0)


def test_a_run_that_was_cut_short_is_not_complete(tmp_path):
    with pytest.raises(TrainingError, match="training ended after 0 of 8 steps although nothing requested an end"):
        ran(tmp_path, "trainer.limit_train_batches=0")
    assert read_record(tmp_path / "run").status == "failed"


def test_callbacks_of_lightning_do_their_work(tmp_path):
    names = {
        path.name
        for path in (ran(tmp_path / "a", callback("ModelCheckpoint", every_n_train_steps=3, save_top_k=-1))).rglob(
            "*.ckpt"
        )
    }
    assert {"epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"} <= names
    names = {
        path.name
        for path in (ran(tmp_path / "b", callback("ModelCheckpoint", every_n_epochs=1, save_top_k=-1))).rglob("*.ckpt")
    }
    assert {"epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"} <= names  # Lightning saves where it validates, once an epoch
    ran(tmp_path / "c", callback("ModelCheckpoint", train_time_interval="00:00:10:00"))
    stopping = callback(
        "EarlyStopping", monitor="train/loss", patience=1, min_delta=100, check_on_train_epoch_end="true"
    )
    stopped = ran(tmp_path / "d", stopping, "trainer.max_steps=100")
    assert read_record(stopped).step < 100
    assert read_record(stopped).status == "complete"
    timed = ran(
        tmp_path / "e",
        callback("Timer", duration="00:00:00:01"),
        "trainer.max_steps=1000000",
        "trainer.val_check_interval=1000000",
    )
    assert read_record(timed).status == "complete"
    ran(tmp_path / "f", callback("DeviceStatsMonitor", cpu_stats="true"))
    for bar in ("RichProgressBar", "RichModelSummary", "ModelSummary"):
        ran(tmp_path / bar, callback(bar))


def test_gradients_are_accumulated_by_lightning_s_schedule(tmp_path):
    folder = ran(
        tmp_path,
        callback("GradientAccumulationScheduler", scheduling="{0: 1, 1: 2}"),
        "trainer.max_epochs=2",
        "trainer.max_steps=-1",
    )
    assert read_record(folder).step == 5 + 3


def test_stochastic_weight_averaging_changes_what_is_sampled_from(tmp_path):
    length = ("trainer.max_epochs=4", "trainer.max_steps=-1", "lr_schedule=constant")
    plain, averaged = (
        ran(tmp_path / name, *length, *words)
        for name, words in (
            ("plain", ()),
            ("averaged", (callback("StochasticWeightAveraging", swa_lrs=0.05, swa_epoch_start=1),)),
        )
    )
    first, second = (read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"] for folder in (plain, averaged))
    assert not torch.equal(first["ema.model.net.layers.0.0.weight"], second["ema.model.net.layers.0.0.weight"])


def test_pruning_reaches_the_weights_and_their_average(tmp_path):
    words = (
        callback("ModelPruning", pruning_fn="l1_unstructured", amount=0.5),
        "trainer.max_epochs=2",
        "trainer.max_steps=-1",
    )
    state = read_checkpoint(ran(tmp_path, *words) / "checkpoints/last.ckpt")["state_dict"]
    for prefix in ("denoiser", "ema.model"):
        weights = torch.cat([v.flatten() for k, v in state.items() if k.startswith(f"{prefix}.net") and "weight" in k])
        assert (weights == 0).float().mean() > 0.4


def test_the_learning_rate_finder_s_rate_is_trained_with(tmp_path):
    finder = callback("LearningRateFinder", num_training_steps=60, min_lr=1e-5, max_lr=0.5)
    folder = ran(tmp_path, finder, "optimizer.lr=1e-7", "lr_schedule=constant", "trainer.max_steps=8")
    rates = [float(row["train/learning_rate"]) for row in rows(folder) if row.get("train/learning_rate")]
    assert rates[-1] == rates[0] > 1e-5
    assert read_record(folder).step == 8


def test_the_batch_size_finder_goes_on_to_the_whole_run(tmp_path, caplog):
    folder = ran(
        tmp_path, callback("BatchSizeFinder", max_trials=2, init_val=16), "trainer.max_epochs=1", "trainer.max_steps=-1"
    )
    assert "Finished batch size finder, will continue with full run using batch size 32" in caplog.text
    assert (read_record(folder).status, read_record(folder).step) == ("complete", 10)


def test_numbers_of_callbacks_stand_on_the_one_axis(tmp_path):
    class Own(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            self.log("own", float(trainer.global_step))

    monitor = callback("LearningRateMonitor")
    cfg = composed(*SMALL, monitor, "trainer.accumulate_grad_batches=2")
    train(cfg, Run(tmp_path / "run", extra_callbacks=(Own(),)))
    table = rows(tmp_path / "run")
    places = {
        key: [int(row["step"]) for row in table if row.get(key)]
        for key in ("train/loss", "lr-AdamW", "own", "val/loss")
    }
    assert places["train/loss"] == places["own"] == [1, 3, 5, 7]
    assert sorted(set(places["lr-AdamW"])) == places["train/loss"]
    assert places["val/loss"][0] == 1  # after four batches
    assert [float(row["own"]) for row in table if row.get("own")] == [2, 4, 6, 8]  # after step k stands k - 1


def test_the_dashboard_is_the_trainer_s_logger_and_the_table_the_second(tmp_path):
    trainer = build(composed(*SMALL, "logger=wandb"), Run(tmp_path / "run")).trainer
    assert isinstance(trainer.logger, WandbLogger)
    assert isinstance(trainer.loggers[1], CSVLogger)
    trainer.logger.watch(torch.nn.Linear(1, 1))
    trainer.logger.experiment.finish()


def test_the_average_is_never_a_step_behind(tmp_path):
    """With no decay it is the weights, in every checkpoint, whichever hook writes it."""
    keep = callback("ModelCheckpoint", every_n_train_steps=1, save_top_k=-1)
    for path in ran(tmp_path, keep, "ema_decay=0", "trainer.accumulate_grad_batches=2").rglob("*.ckpt"):
        state = read_checkpoint(path)["state_dict"]
        own = {name: value for name, value in state.items() if name.startswith("denoiser.")}
        assert own
        assert all(
            torch.equal(value, state[f"ema.model.{name.removeprefix('denoiser.')}"]) for name, value in own.items()
        )


def test_every_argument_of_the_trainer_is_a_key_of_the_config():
    signature = set(inspect.signature(L.Trainer).parameters)
    assert signature == set(composed().trainer) - {"_target_"}


def test_the_step_is_ten_lines_that_end_in_the_loss():
    lines = [line for line in inspect.getsource(DiffusionModule.training_step).splitlines() if line.strip()]
    assert len(lines) <= 10
    assert "return losses.mean()" in lines[-1]


def test_the_bar_of_a_resumed_run_begins_where_the_run_stopped(tmp_path, capfd):
    bar = "+callbacks.bar={_target_: litdiffusion.callbacks.StepProgress}"
    ran(tmp_path, bar, "lr_schedule=constant", "trainer.max_steps=4")
    capfd.readouterr()
    ran(tmp_path, bar, "lr_schedule=constant", "trainer.max_steps=8")
    shown = re.findall(r"training:.*?(\d+)/8 \[.*?, +(.*?it/s|\?)", "".join(capfd.readouterr()))
    assert [int(step) for step, _ in shown] == sorted(int(step) for step, _ in shown)
    assert int(shown[0][0]) == 4
    assert not any("-" in rate for _, rate in shown)


@pytest.mark.parametrize(
    "words", [[], ["data=digits", "model=unet", "model.channels=[8]", "gradient_checkpointing=true"]]
)
def test_module_data_and_trainer_can_be_sent_to_spawned_processes(words, tmp_path):
    """As ``trainer.strategy=ddp_spawn`` sends them."""
    experiment = build(composed(*QUIET, "logger=csv", *words), Run(tmp_path))
    experiment.trainer.logger.log_metrics({"loss": 1.0}, step=0)
    module, data, trainer = pickle.loads(pickle.dumps((experiment.module, experiment.data, experiment.trainer)))
    assert torch.equal(next(module.parameters()), next(experiment.module.parameters()))
    assert trainer.max_steps == experiment.trainer.max_steps
    assert data.fingerprint() == experiment.data.fingerprint()
