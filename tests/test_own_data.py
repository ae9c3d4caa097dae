"""An ordinary LightningDataModule of one's own, which knows nothing of this project, through our command line."""

import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import FEW_STATES, TINY, UNDRAWN, composed
from omegaconf import DictConfig, open_dict
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from litdiffusion.build import Run, build
from litdiffusion.commands.training import train
from litdiffusion.data import Digits, facts_of
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained

HERE = Path(__file__).stem
SIZE = 48


class Mine(L.LightningDataModule):
    """Vectors or images, with labels or without; it declares nothing."""

    def __init__(
        self, images: bool = False, class_labels: bool = False, bytes: bool = False, workers: int = 0, size: int = SIZE
    ):
        super().__init__()
        self.images, self.class_labels, self.bytes, self.workers, self.size = images, class_labels, bytes, workers, size
        self.stages: list[str] = []

    def setup(self, stage: str) -> None:
        self.stages.append(stage)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.size, *((1, 8, 8) if self.images else (2,)), generator=generator)
        x = (255 * x).to(torch.uint8) if self.bytes else x if self.images else 3 * x - 1
        parts = (x, torch.arange(self.size) % 3) if self.class_labels else (x,)
        self.set = Halved(TensorDataset(*parts)) if self.workers else TensorDataset(*parts)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.set, batch_size=16, shuffle=True, num_workers=self.workers)


class Validated(Mine):
    """The same with a validation part."""

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.set, batch_size=10)


class Shaped(Validated):
    """The same, which declares its shape and nothing else."""

    shape = (2,)


class Halved(Dataset):
    """What a random transform in a worker process makes of the items."""

    def __init__(self, items: Dataset):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, *class_label = self.items[index]
        return (x * (0.5 + 0.1 * torch.rand(())), *class_label)


class Stream(IterableDataset):
    """Items without number."""

    def __iter__(self):
        while True:
            yield torch.randn(2)


class Endless(L.LightningDataModule):
    """Data without a length, from a loader that says neither."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Stream(), batch_size=16)


class Bad(L.LightningDataModule):
    """Whose loader gives what it is told to."""

    shape = (2,)

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def train_dataloader(self) -> DataLoader:
        x = torch.ones(8, 2)
        return {
            "dictionary": lambda: DataLoader([{"x": row} for row in x], batch_size=4),
            "integers": lambda: DataLoader(torch.ones(8, 1, 2, 2).long(), batch_size=4),
            "empty": lambda: DataLoader(x, batch_size=16, drop_last=True),
            "shape": lambda: DataLoader(torch.ones(8, 3), batch_size=4),
            "nan": lambda: DataLoader(x / 0 - x / 0, batch_size=4),
        }[self.kind]()


SMALL = (
    *("schedule.steps=50", "callbacks.progress_bar=null", "callbacks.final_samples.points=100"),
    *("callbacks.trajectory.points=100", "callbacks.live_quality.samples=50", *FEW_STATES),
)


def config(name: str, *overrides: str, **settings) -> DictConfig:
    """A tiny run's config whose data node names a class of this file."""
    cfg = composed(*TINY, *SMALL, f"trusted=[{HERE}]", *overrides)
    with open_dict(cfg):
        cfg.data = {"_target_": f"{HERE}.{name}", **settings}
    return cfg


@pytest.fixture
def ran(tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """Trains with all default callbacks: the run's folder, and the warnings."""

    def run(name: str, *overrides: str, **settings) -> tuple[Path, list[str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(config(name, *overrides, **settings), Run(tmp_path / "run"))
        return tmp_path / "run", [str(warning.message) for warning in caught]

    return run


UNET = ["model=unet", "model.channels=[4]", "model.blocks=1"]
KINDS = {
    "vectors": ("Mine", [], {}),
    "labelled vectors": ("Validated", ["conditional=true"], {"class_labels": True}),
    "shaped": ("Shaped", [], {"class_labels": True}),
    "workers": ("Validated", [], {"workers": 1}),
    "images": ("Validated", UNET, {"images": True}),
    "labelled images": ("Mine", [*UNET, "conditional=true"], {"images": True, "class_labels": True}),
    "bytes": ("Validated", UNET, {"images": True, "bytes": True}),
    "no length": ("Endless", [], {}),
    "learned variance": ("Validated", [*UNET, "objective=hybrid", "sampler.variance=learned"], {"images": True}),
}


ALIKE = ("vectors", "labelled vectors", "workers", "images", "labelled images", "learned variance")


@pytest.mark.parametrize(
    ("kind", "overrides", "settings"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in ALIKE)) for name, case in KINDS.items()],
)
def test_data_of_ones_own_train_and_all_callbacks_draw(kind, overrides, settings, ran):
    folder, lines = ran(kind, *overrides, **settings)
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    images = settings.get("images", False)
    assert pictures >= {"forward_process.png", "samples.png", "trajectory.gif", "trajectory_step_000004.png"}
    assert ("field.png" in pictures) is not images
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {"last.ckpt", "best_step_000004.ckpt"}
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/loss"} <= set(header)
    assert ("quality/wasserstein" in header) is not images
    assert any(line.startswith("likelihood/") for line in header)
    assert any("is read as items of shape" in line for line in lines)
    assert any("has no validation data" in line for line in lines) is (kind in ("Mine", "Endless"))
    assert any("samples are not measured: metrics=vectors" in line for line in lines) is images
    model = Pretrained(folder / "checkpoints" / "last.ckpt", trust=HERE)
    assert model.sample(n=2).shape == (2, *model.shape)
    assert model.num_classes == (3 if "conditional=true" in overrides else 0)
    assert model.value_range == (((-1.0, 1.0) if settings.get("bytes") else (0.0, 1.0)) if images else None)


def test_the_scripts_find_the_data_again(ran, command):
    folder, _ = ran("Validated", *UNDRAWN, class_labels=True)
    ckpt = [f"ckpt={folder}/checkpoints/last.ckpt", f"trust={HERE}", "device=cpu"]
    for script, *options in (
        ("sample", "n=3"),
        ("likelihood", "n=4", "method=bound"),
        ("evaluate", "n=20", "samplers=own", "steps=[2]"),
        ("inpaint", "n=2", "samples=20"),
    ):
        status, _, err = command(f"scripts/{script}.py", *ckpt, *options)
        assert status == 0, err


def test_the_same_through_the_command_line(command, tmp_path, monkeypatch):
    """The module on Python's path, a yaml in a folder of one's own."""
    (tmp_path / "mymodule.py").write_text(
        "import lightning as L, torch\n"
        "from torch.utils.data import DataLoader\n"
        "class MyData(L.LightningDataModule):\n"
        "    def __init__(self, size): super().__init__(); self.x = torch.randn(size, 2)\n"
        "    def train_dataloader(self): return DataLoader(self.x, batch_size=16)\n"
    )
    (tmp_path / "myconf" / "data").mkdir(parents=True)
    (tmp_path / "myconf" / "data" / "mine.yaml").write_text("_target_: mymodule.MyData\nsize: 32\n")
    monkeypatch.syspath_prepend(tmp_path)
    quick = ["callbacks=none", "trainer.max_steps=2", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    status, out, err = command("train.py", "--config-dir", str(tmp_path / "myconf"), "data=mine", *quick)
    assert status == 0, err
    assert "32 training items of shape (2,)" in out
    assert "warning: mydata is read as items of shape (2,), any value, no classes" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dictionary", r"a batch must be a tensor"),
        ("integers", r"images must be floats or bytes"),
        ("empty", r"the training loader returns no batch"),
        ("shape", r"data\.shape=\(2,\) is declared, but the training loader returns items of \(3,\)"),
        ("nan", r"the training data have 16 values that are NaN"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(kind, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        build(config("Bad", kind=kind), Run(tmp_path))
    assert "\n" not in str(error.value)


def test_facts_are_declared_or_found_and_looking_changes_no_random_number():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with pytest.warns(
        UserWarning, match=r"validated is read as items of shape \(1, 8, 8\), values in \[0, 1\], 3 classes"
    ):
        found = facts_of(Validated(images=True, class_labels=True))
    assert torch.equal(torch.rand(3), expected)
    assert (found.shape, found.num_classes, found.value_range, found.complete) == ((1, 8, 8), 3, (0.0, 1.0), True)
    assert (len(found.train.data), len(found.val.data), found.name) == (SIZE, SIZE, "validated")
    declared = Validated(images=True, class_labels=True)
    declared.num_classes, declared.value_range = 10, (-1.0, 1.0)
    with pytest.warns(UserWarning, match=r"values in \[-1, 1\], 10 classes"):
        assert facts_of(declared).fingerprint() == found.fingerprint()


def test_only_the_first_items_of_much_data_are_kept():
    with pytest.warns(UserWarning, match="is read as"):
        found = facts_of(DataLoader(torch.zeros(2500, 1, 2, 2), batch_size=100))
    assert (len(found.train.data), found.complete) == (2000, False)


@pytest.mark.parametrize("metrics", ["classifier", "inception"])
def test_metrics_that_cannot_be_had_are_left_out_in_one_line(metrics, ran, tmp_path):
    """A classifier of data without labels, Inception without its weights."""
    off = [f"callbacks.{name}=null" for name in ("trajectory", "forward_process", "final_samples", "live_likelihood")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path))
        folder, lines = ran("Mine", *UNET, *off, f"metrics={metrics}", f"metrics.cache={tmp_path}", images=True)
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert sum("goes on without live quality" in line for line in lines) == 1


def test_a_small_labelled_set_has_the_metrics_of_its_classes(ran, tmp_path):
    quick = ["metrics.features.steps=10", "callbacks.live_quality.samples=20", "callbacks.live_quality.steps=2"]
    overrides = [*UNET, "metrics=classifier", f"metrics.cache={tmp_path}", *(f"+{quick[0]}", *quick[1:])]
    folder, _ = ran("Validated", *overrides, images=True, class_labels=True)
    assert "quality/frechet" in (folder / "metrics.csv").read_text().splitlines()[0]


def test_a_metric_that_was_asked_for_is_still_refused(tmp_path):
    warnings.simplefilter("ignore")  # pytest restores the filters after each test
    with pytest.raises(UserError, match="metric must be one of"):
        build(config("Validated", *UNET, "metric=quality/frechet", images=True), Run(tmp_path))


def test_a_run_on_data_of_ones_own_goes_on_with_weights_average_optimizer_and_steps(ran):
    """The order of the items is the loader's own: what is exact is the state that the run goes on from."""
    quiet = [*UNDRAWN, "metrics=none", "lr_schedule=constant"]
    folder, _ = ran("Validated", *quiet, "trainer.max_steps=4")
    before = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    ran("Validated", *quiet, "trainer.max_steps=5", "optimizer.lr=1e-3")
    after = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (before["global_step"], after["global_step"]) == (4, 5)
    assert {float(state["step"]) for state in after["optimizer_states"][0]["state"].values()} == {5.0}
    for name, value in before["state_dict"].items():
        moved = (after["state_dict"][name] - value).abs().max()
        assert 0 < moved < 3e-3 or name.startswith("ema."), name  # one step of Adam, from where it stood


def test_a_config_outside_of_a_run_reads_labelled_images_once(monkeypatch):
    """`num_classes` follows from the data and from whether the net has such an argument, whose value it is."""
    reads = []
    monkeypatch.setattr(Digits, "read", lambda self, read=Digits.read: reads.append(self) or read(self))
    assert composed("model=unet", "data=digits", "seed=831").derived.num_classes == 10
    assert len(reads) == 1
