"""A checkpoint from a stranger: nothing in it is called, followed or given memory, and one line says what is wrong."""

import importlib
import inspect
import io
import json
import pickle
import pkgutil
import resource
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import BARE_RUN, CONF, composed
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

import litdiffusion
from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.config.received import checked_part, kinds
from litdiffusion.config.trust import targets
from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export
from litdiffusion.training import DiffusionModule

MLP = "litdiffusion.nets.MLP"
IDENTITY = {"_target_": "litdiffusion.codecs.Identity"}


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> dict[str, Any]:
    """The content of a checkpoint of a tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(composed(*BARE_RUN, "data.size=600", "model.hidden=8", "model.layers=1", "schedule.steps=25"), Run(folder))
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    content.pop("sealed")
    return content


@pytest.fixture
def altered(sent, tmp_path) -> Callable[..., Path]:
    """Writes the checkpoint with other sections or settings of its config, or with another record."""

    def write(record: Any = None, **config: Any) -> Path:
        if record is None:
            record = {**sent["litdiffusion"], "config": {**sent["litdiffusion"]["config"], **config}}
        torch.save({**sent, "litdiffusion": record}, tmp_path / "sent.ckpt")
        return tmp_path / "sent.ckpt"

    return write


def refusal(path: Path, load: Callable[[Path], Any] = Pretrained) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(UserError) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


def test_the_checkpoint_itself_is_loaded(altered):
    assert Pretrained(altered()).sample(n=2).shape == (2, 2)
    assert DiffusionModule.load_from_checkpoint(altered()).shape == (2,)


def test_a_restored_module_stores_where_its_data_and_metrics_are_from(altered, tmp_path):
    module, path = DiffusionModule.load_from_checkpoint(altered()), tmp_path / "again.ckpt"
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(max_steps=1, logger=False, accelerator="cpu", **quiet)
    trainer.fit(module, DataLoader(torch.randn(16, 2), batch_size=16))
    trainer.save_checkpoint(path)
    assert Pretrained(path).section("data") == Pretrained(altered()).section("data")
    assert Pretrained(path).section("metrics") == Pretrained(altered()).section("metrics")


def callables() -> Iterator[str]:
    """The dotted name of every function of litdiffusion and every method of its classes, wherever it is found."""
    for info in pkgutil.walk_packages(litdiffusion.__path__, "litdiffusion."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__.startswith("litdiffusion."):
                own = [key for key in vars(value) if callable(getattr(value, key)) and key != "__class__"]
                yield from (f"{info.name}.{name}.{key}" for key in own)
            elif callable(value) and not inspect.isclass(value):
                yield f"{info.name}.{name}"


@pytest.mark.parametrize("share", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_no_function_and_no_method_may_stand_in_any_section(share):
    """The short form asks each section about every seventh name, so that the sections together hear of each one."""
    names = sorted(set(callables()))
    assert len(names) > 2000
    assert len(kinds()) >= 7
    for k, section in enumerate(kinds()):
        for name in names[k % share :: share]:
            with pytest.raises(UserError):
                checked_part({"_target_": name}, section)


def classes() -> Iterator[tuple[str, type]]:
    for info in pkgutil.walk_packages(litdiffusion.__path__, "litdiffusion."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if inspect.isclass(value):
                yield f"{info.name}.{name}", value


def test_a_class_may_stand_in_the_section_of_its_kind_alone():
    for name, value in classes():
        for section, kind in kinds().items():
            if not issubclass(value, kind):
                with pytest.raises(UserError):
                    checked_part({"_target_": name}, section)


FOREIGN = (
    *("torch.nn.functional.relu", "torch.nn.Module.load_state_dict", "torch.nn.init.normal_", "torch.nn.DataParallel"),
    *("torch.jit.ScriptModule", "torch.jit.RecursiveScriptModule", "torch.fx.GraphModule", "torch.hub.load"),
    *("torch.distributed.nn.RemoteModule", "torch.distributed.nn.api.remote_module.RemoteModule"),
    *("torch.nn.parallel.DistributedDataParallel", "torch.optim.Adam", "torch.optim.swa_utils.AveragedModel"),
    *("torchvision.models.resnet18", "torchvision.models.get_model", "torchvision.datasets.MNIST"),
    *("torchvision.models.feature_extraction.DualGraphModule", "torchvision.models.detection.fasterrcnn_resnet50_fpn"),
    *("diffusers.UNet2DModel.from_pretrained", "diffusers.DDPMPipeline", "timm.create_model"),
    *("torchmetrics.MeanMetric", "lightning.Trainer", "lightning.LightningModule", "lightning.pytorch.Trainer"),
    *("litdiffusion.training.DiffusionModule", "litdiffusion.training.DiffusionModule.load_from_checkpoint"),
    *("litdiffusion.nets.mlp.nn.Linear", "litdiffusion.data.images.torch.nn.Linear", "transformers.pipeline"),
    *("os.system", "builtins.eval", "pathlib.Path", "functools.partial", "", ".", "litdiffusion", "torch.nn"),
)


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_functions_and_modules_of_code_are_refused(name, altered):
    refusal(altered(model={"_target_": name}))
    refusal(altered(codec={"_target_": name, "net": {"_target_": name}}))


@pytest.mark.parametrize("name", ["torch.nn.Linear", "torch.nn.TransformerEncoderLayer", "torchvision.models.VGG"])
def test_a_class_of_torch_is_a_net_and_nothing_else(name):
    assert checked_part({"_target_": name}, "model") == {"_target_": name}
    for section in set(kinds()) - {"model"}:
        with pytest.raises(UserError, match="is not a"):
            checked_part({"_target_": name}, section)


def test_what_conf_holds_may_stand_in_a_checkpoint():
    pytest.importorskip("diffusers", reason="one of the yamls names it")
    found = 0
    for group in kinds():
        for path in sorted((CONF / group).glob("*.yaml")):
            content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            node = content.get(group, content)
            plain = {key: value for key, value in node.items() if "${" not in str(value) or isinstance(value, dict)}
            if "_target_" in node:
                names = [name for _, name in targets(checked_part(_resolved(plain), group))]
                assert names == [name for _, name in targets(node)]
                found += 1
    assert found > 50


def _resolved(node: Any) -> Any:
    """The node with numbers for its interpolations."""
    if isinstance(node, dict):
        return {key: _resolved(value) for key, value in node.items()}
    return 3 if isinstance(node, str) and "${" in node else node


ODD = {
    "a net in a number": ({"_target_": MLP, "hidden": {"_target_": MLP}}, "where its signature takes none"),
    "a net in a list": ({"_target_": MLP, "shape": [{"_target_": MLP}]}, "where its signature takes none"),
    "a codec in a net": ({"_target_": "litdiffusion.nets.Adapter", "net": {**IDENTITY, "a": IDENTITY}}, "takes none"),
    "a net in a dictionary": ({"_target_": "litdiffusion.nets.Adapter", "net": {"a": {"_target_": MLP}}}, "none"),
    "an optimizer in a net": (
        {"_target_": "litdiffusion.nets.Adapter", "net": {"_target_": "torch.optim.Adam"}},
        "is not a Module",
    ),
    "an interpolation": ({"_target_": MLP, "hidden": "${oc.env:HOME}"}, "interpolation"),
    "an interpolation in a list": ({"_target_": MLP, "shape": ["${oc.env:HOME}"]}, "interpolation"),
    "an interpolated class": ({"_target_": "${oc.env:HOME}"}, "interpolation"),
    "an interpolated key": ({"_target_": MLP, "${oc.env:HOME}": 1}, "has the key"),
    "_partial_": ({"_target_": MLP, "_partial_": True}, "has the key '_partial_'"),
    "_recursive_": ({"_target_": MLP, "_recursive_": False}, "has the key '_recursive_'"),
    "_convert_": ({"_target_": MLP, "_convert_": "all"}, "has the key '_convert_'"),
    "_args_": ({"_target_": "torch.nn.Sequential", "_args_": [{"_target_": MLP}]}, "has the key '_args_'"),
    "a key that is a number": ({"_target_": MLP, 3: 3}, "has the key '3'"),
    "a huge number": ({"_target_": MLP, "hidden": 10**300}, "is a number beyond"),
    "a number of 5000 digits": ({"_target_": MLP, "hidden": 10**5000}, ""),
    "NaN": ({"_target_": MLP, "hidden": float("nan")}, "is not a number"),
    "a long text": ({"_target_": MLP, "hidden": "x" * 200_000}, "larger than any config"),
    "a long list": ({"_target_": MLP, "shape": [2] * 200_000}, "larger than any config"),
    "a set": ({"_target_": MLP, "hidden": {1, 2}}, "holds set"),
    "a tensor": ({"_target_": MLP, "hidden": torch.ones(2)}, "holds Tensor"),
    "an absent value": ({"_target_": MLP, "shape": "???"}, ""),
    "an unknown argument": ({"_target_": MLP, "path": "/etc"}, "path is not an argument of MLP"),
    "a class that is none": ({"_target_": ["os.system"]}, "names no class"),
    "no class": ({"hidden": 3}, "names no class"),
    "a net without shape": ({"_target_": MLP}, ""),
    "list": ([IDENTITY], "is list, no group of settings"),
    "text": ("os.system", "is str, no group of settings"),
    "number": (5, "is int, no group of settings"),
    "nothing": (None, "has no model"),
}


@pytest.mark.parametrize(("node", "message"), ODD.values(), ids=ODD)
def test_an_odd_section_is_refused_in_one_line(node, message, altered, tmp_path):
    assert message in refusal(altered(model=node))
    assert {path.name for path in tmp_path.iterdir()} == {"sent.ckpt"}


@pytest.mark.parametrize("section", ["model", "codec", "schedule", "parameterization", "sampler"])
@pytest.mark.parametrize("node", [None, [], 0, 5, "x", {}, [1], {"_target_": None}, {"_target_": 3}, True])
def test_every_section_of_an_odd_type_is_refused_in_one_line(section, node, altered):
    assert section in refusal(altered(**{section: node}))


@pytest.mark.parametrize("section", ["times", "weighting", "objective", "optimizer"])
def test_a_module_is_not_made_from_an_odd_section_of_its_training(section, altered):
    for node in (None, 5, {"_target_": "os.system"}, {"_target_": "litdiffusion.data.facts_of"}, {"_target_": MLP}):
        assert section in refusal(altered(**{section: node}), DiffusionModule.load_from_checkpoint)


def test_a_schedule_of_rates_in_the_form_of_lightning(altered):
    scheduler = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}
    loads = DiffusionModule.load_from_checkpoint
    loads(altered(lr_schedule={"scheduler": scheduler, "interval": "epoch", "monitor": "val/loss"}))
    loads(altered(lr_schedule=None))
    for node in (
        {"scheduler": {"_target_": "os.system"}},
        {"scheduler": {"_target_": "torch.optim.Adam"}},
        {"scheduler": scheduler, "monitor": {"_target_": "os.system"}},
        {"scheduler": scheduler, "_target_": "os.system"},
        {"scheduler": scheduler, "_partial_": True},
        {"scheduler": [scheduler]},
    ):
        refusal(altered(lr_schedule=node), loads)


def test_long_tables_are_refused(sent, altered):
    config = sent["litdiffusion"]["config"]
    assert "beyond 1000000" in refusal(altered(schedule={**config["schedule"], "steps": 10**9}))
    assert "beyond 1000000" in refusal(altered(sampler={**config["sampler"], "steps": 10**9}))
    refusal(altered(data={**config["data"], "size": 10**10}), lambda path: Pretrained(path).data())


def test_lists_in_themselves_are_refused_at_once(sent, altered):
    endless: list[Any] = [1]
    endless.append(endless)
    laughs: list[Any] = [1] * 10
    for _ in range(15):
        laughs = [laughs] * 10
    assert "more values than any checkpoint" in refusal(altered(model=laughs))
    assert "more values than any checkpoint" in refusal(altered(record=endless))
    refusal(altered(callbacks=endless), lambda path: export(path, path.parent / "exported"))
    assert not (altered().parent / "exported").exists()


def test_paths_come_from_the_user_alone(sent, altered, tmp_path, monkeypatch):
    images = {"_target_": "litdiffusion.data.TorchvisionImages", "dataset": "MNIST", "batch_size": 4, "seed": 0}
    there, here = str(tmp_path / "there"), str(tmp_path / "here")
    assert checked_part({**images, "root": there}, "data") == images
    assert checked_part({**images, "root": there}, "data", paths={"root": here, "path": here})["root"] == here
    folder = {"_target_": "litdiffusion.data.ImageFolder", "image_size": 8, "batch_size": 4, "seed": 0}
    assert checked_part({**folder, "path": there}, "data") == folder
    loaded = Pretrained(altered(data={**folder, "path": there}))
    with pytest.raises(UserError, match="data_path="):
        loaded.data()
    with pytest.raises(UserError, match="here"):
        loaded.data(path=here)
    features = {"_target_": "litdiffusion.measure.features.ClassifierFeatures", "cache": there, "steps": 40}
    metrics = {"_target_": "litdiffusion.measure.quality.ImageQuality", "cache": there, "features": features}
    monkeypatch.setenv("LITDIFFUSION_DATA", here)
    quality = Pretrained(altered(metrics=metrics)).metrics()
    assert {str(quality.cache), str(quality.features.cache)} == {f"{here}/metrics"}
    inception = {"_target_": "litdiffusion.measure.features.InceptionFeatures", "weights": there}
    assert Pretrained(altered(metrics={**metrics, "features": inception})).metrics("/x").features.weights is None
    assert {path.name for path in tmp_path.iterdir()} == {"sent.ckpt"}


def test_every_path_of_data_and_metrics_is_declared_as_one():
    for name, value in classes():
        if name.startswith(("litdiffusion.data.", "litdiffusion.measure.")) and value.__module__ in name:
            for argument, parameter in inspect.signature(value).parameters.items():
                if {"path", "root", "cache", "folder", "file", "weights"} & set(argument.split("_")):
                    assert "Path" in str(parameter.annotation) or "Tensor" in str(parameter.annotation), name


GOOD = {"derived": {"shape": [2], "num_classes": 0}}
MALFORMED = {
    "record": (5, [], "x", None, {}, {"config": None}, {"config": [1]}, {"config": "x"}, {"config": {}}),
    "derived": (None, 5, [], "x", {}, {"shape": None}, "${oc.env:HOME}"),
    "derived.shape": (None, 2, "2", [], [0], [-1], [10**9], [1, 2, 3, 4, 5], [2.5], ["x"], [None], [10**400], [[2]]),
    "derived.num_classes": ("x", -1, 1.5, 10**9, 10**400, [1], float("nan"), "${oc.env:HOME}"),
    "learned_variance": (3, "x", [], {}, float("nan")),
    "clip_samples": (3, "x", [], "${oc.env:HOME}"),
    "class_dropout": (-0.1, 1, 1.5, "x", [], float("nan"), float("inf"), "${oc.env:HOME}"),
    "ema_decay": (-1, 1, "x", [], float("nan"), float("-inf"), None),
    "seed": (-1, 2**32, 10**400, 1.5, "x", [], float("nan"), None, "${oc.env:HOME}"),
    "skip_nonfinite": (-1, 10**400, "x", [], float("nan")),
}


@pytest.mark.parametrize("field", MALFORMED)
def test_a_malformed_record_is_refused_in_one_line(field, sent, altered):
    config = sent["litdiffusion"]["config"]
    for value in MALFORMED[field]:
        if field == "record":
            path = altered(record=value) if value is not None else altered(record=[None])
        elif field.startswith("derived."):
            path = altered(derived={**config["derived"], field.partition(".")[2]: value})
        else:
            path = altered(**{field: value})
        assert "holds no model" in refusal(path), value


RANGES = (5, "ab", [], [1], [1, 2, 3], [1, -1], [0, 0], [float("nan"), 1], [0, float("inf")], ["x", 1], [[0], 1], {})


@pytest.mark.parametrize("value", RANGES, ids=str)
def test_a_range_of_values_that_is_none_is_refused_in_one_line(value, sent, altered):
    assert "value_range" in refusal(altered(record={**sent["litdiffusion"], "value_range": value}))


@pytest.mark.parametrize("state", [None, 5, {}, [], {"a": 1}, {3: torch.ones(2)}, {"ema.model.net.x": torch.ones(2)}])
def test_weights_that_are_none_are_refused_in_one_line(state, sent, tmp_path):
    torch.save({**sent, "state_dict": state}, tmp_path / "sent.ckpt")
    refusal(tmp_path / "sent.ckpt")
    torch.save({key: value for key, value in sent.items() if key != "state_dict"}, tmp_path / "sent.ckpt")
    refusal(tmp_path / "sent.ckpt")


# Sizes


def peak() -> int:
    """The most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


HUGE = {
    "wide": {"hidden": 10**5, "layers": 3},
    "deep": {"layers": 10**6},
    "many channels": {"out_channels": 10**6, "hidden": 1000},
}


@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE)
def test_a_net_much_larger_than_its_weights_is_refused_before_it_takes_memory(change, sent, altered):
    path = altered(model={**sent["litdiffusion"]["config"]["model"], **change})
    before = peak()
    assert "a larger net than its weights" in refusal(path)
    assert peak() - before < 200


def test_a_net_that_cannot_be_made_on_the_meta_device_is_bounded_too(altered, tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    text = (
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = torch.ones(1).item()\n"
        "        self.layers = nn.ModuleList(nn.Linear(4000, 4000) for _ in range(1000))\n"
    )
    (tmp_path / "code" / "netsofmine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "code")
    before = peak()
    message = refusal(altered(model={"_target_": "netsofmine.Net"}), lambda path: Pretrained(path, trust="netsofmine"))
    assert "a larger net than its weights" in message
    assert peak() - before < 500


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with other bytes in its entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))
    return path


def as_it_is(name: str, data: bytes) -> bytes:
    return data


def test_a_byte_array_and_other_names_in_the_pickle_are_refused_before_it_is_read(sent, tmp_path):
    class Array:
        def __reduce__(self):
            return bytearray, (2**33,)

    class Name:
        def __reduce__(self):
            return print, ("called",)

    for value in (Array(), Name()):
        data = pickle.dumps({"litdiffusion": sent["litdiffusion"], "x": value}, protocol=2)
        with zipfile.ZipFile(tmp_path / "sent.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3\n")
        before = peak()
        assert "which no checkpoint does" in refusal(tmp_path / "sent.ckpt")
        assert peak() - before < 200
    with zipfile.ZipFile(tmp_path / "sent.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Name(), protocol=4))
    assert "torch did not write" in refusal(tmp_path / "sent.ckpt")


def test_whatever_a_callback_may_keep_is_read(sent, tmp_path):
    """A state that torch reads and that is refused here would make one's own run impossible to resume."""
    kinds_of_tensors = (torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.uint16, torch.bool)
    kinds_of_tensors += (torch.complex64, torch.float8_e4m3fn, torch.int64)
    state = {"tensors": [torch.zeros(3, 2).to(kind) for kind in kinds_of_tensors], "parameter": torch.nn.Parameter()}
    state |= {"empty": torch.empty(0, 3), "turned": torch.ones(2, 3).T, "dtype": torch.float16, "none": None}
    state |= {"plain": [1, 2.5, 1j, "x", b"bytes", {1, 2}, (1, (2,)), Counter("ab"), torch.Size((2,))]}
    state |= {
        "place": torch.device("cpu"),
        "ordered": OrderedDict(a=1),
        "tied": (a := torch.ones(100), a, a.view(10, 10)),
    }
    torch.save({**sent, "callbacks": state}, tmp_path / "sent.ckpt")
    torch.load(tmp_path / "sent.ckpt", weights_only=True)
    assert Pretrained(tmp_path / "sent.ckpt")


def test_tensors_larger_than_their_bytes_are_refused(sent, tmp_path):
    big = torch.as_strided(torch.ones(1), (2**17, 2**17), (0, 0))
    shared = torch.ones(2**20)
    for state in ({**sent["state_dict"], "x": big}, {f"x{i}": shared[i:] for i in range(1000)}):
        torch.save({**sent, "state_dict": state}, tmp_path / "sent.ckpt")
        for load in (Pretrained, lambda path: export(path, path.parent / "exported")):
            assert "larger than" in refusal(tmp_path / "sent.ckpt", load)
    assert not (tmp_path / "exported").exists()


def test_a_compressed_archive_and_one_that_holds_its_bytes_twice_are_refused(altered):
    assert Pretrained(rewritten(altered(), as_it_is))
    assert "is compressed" in refusal(rewritten(altered(), as_it_is, zipfile.ZIP_DEFLATED))
    path = rewritten(altered(), as_it_is)
    raw = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        start, count = archive.start_dir, len(archive.namelist())
    end = raw.rindex(b"PK\x05\x06")
    directory, total = raw[start:end] * 50, count * 50
    tail = b"PK\x05\x06" + bytes(4) + total.to_bytes(2, "little") * 2 + len(directory).to_bytes(4, "little")
    path.write_bytes(raw[:start] + directory + tail + start.to_bytes(4, "little") + bytes(2))
    assert "larger inside than outside" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), bytes(1000), b"\x80\x02}q\x00."])
def test_a_file_that_is_no_archive_is_refused_in_one_line(data, tmp_path):
    (tmp_path / "sent.ckpt").write_bytes(data)
    refusal(tmp_path / "sent.ckpt")


def test_a_file_of_the_old_format_and_a_truncated_one_are_refused_in_one_line(sent, altered, tmp_path):
    torch.save(sent, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert "cannot be read as a checkpoint" in refusal(tmp_path / "old.ckpt")
    raw = altered().read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        (tmp_path / "sent.ckpt").write_bytes(raw[: int(len(raw) * share)])
        assert "cannot be read as a checkpoint" in refusal(tmp_path / "sent.ckpt")


def test_damaged_pickles_are_refused_in_one_line(altered):
    for place in (0, 5, 100, 1000, -2):
        path = rewritten(altered(), lambda name, data, at=place: _flipped(data, at) if name.endswith(".pkl") else data)
        try:
            Pretrained(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


def _flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 0xFF
    return bytes(changed)


# Exports


@pytest.fixture
def exported(altered, tmp_path) -> Path:
    return export(altered(), tmp_path / "exported")


DEEP = "[" * 100_000
CONFIGS = ("null", "5", "[]", "{}", '"x"', DEEP, '{"a":' + DEEP, "", "{", '{"weights": "ema"}', '{"weights": []}')


@pytest.mark.parametrize("text", CONFIGS, ids=range(len(CONFIGS)))
def test_a_malformed_config_of_an_export_is_refused_in_one_line(text, exported):
    (exported / "config.json").write_text(text)
    refusal(exported)


@pytest.mark.parametrize("change", [{"config": 5}, {"config": None}, {"value_range": 5}, {"value_range": "ab"}])
def test_malformed_values_in_an_export_are_refused_in_one_line(change, exported):
    record = json.loads((exported / "config.json").read_text())
    (exported / "config.json").write_text(json.dumps({**record, **change}))
    assert "holds no model" in refusal(exported)


def test_an_export_without_range_and_with_other_weights(exported):
    record = json.loads((exported / "config.json").read_text())
    (exported / "config.json").write_text(json.dumps({key: record[key] for key in ("weights", "config")}))
    assert Pretrained(exported).value_range is None
    weights = load_file(exported / "model.safetensors")
    save_file({f"{name}x": value for name, value in weights.items()}, exported / "model.safetensors")
    assert "do not fit its own config" in refusal(exported)


class Allowed:
    """What a user's own callback stores in a checkpoint."""


def test_what_a_user_allowed_torch_to_load_is_loaded(sent, tmp_path):
    torch.save({**sent, "callbacks": {"mine": Allowed()}}, tmp_path / "mine.ckpt")
    assert "test_received.Allowed" in refusal(tmp_path / "mine.ckpt")
    with torch.serialization.safe_globals([Allowed]):
        assert Pretrained(tmp_path / "mine.ckpt").shape == (2,)
    with torch.serialization.safe_globals([(Allowed, "test_received.Allowed")]):
        assert Pretrained(tmp_path / "mine.ckpt").shape == (2,)
