"""Models on the hub, without a network: the library's own cache, offline mode, and a stand-in for its server."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import BARE_RUN

from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export

hub = pytest.importorskip("huggingface_hub", reason="an extra of the package")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def put_into_cache(folder: Path, cache: Path, name: str) -> Path:
    """Lays out a model in the library's cache as a download does."""
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(folder, model / "snapshots" / COMMIT))


class Server:
    """What ``HfApi`` sends; ``error`` is raised instead."""

    error: Exception | None = None

    def __init__(self) -> None:
        self.sent: dict[str, dict[str, bytes]] = {}

    def whoami(self) -> dict[str, str]:
        return self._answer({"name": "me"})

    def create_repo(self, name: str, exist_ok: bool) -> str:
        assert exist_ok
        return self._answer(f"https://hub/{name}")

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.sent[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}

    def _answer(self, value: object) -> object:
        if self.error is not None:
            raise self.error
        return value


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The stand-in of a hub that is reached, with a token."""
    stand_in = Server()
    monkeypatch.setattr(hub, "HfApi", lambda: stand_in)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    return stand_in


def test_a_model_of_the_hub_draws_what_its_checkpoint_draws(finished, tmp_path, command):
    checkpoint = finished / "checkpoints" / "last.ckpt"
    put_into_cache(export(checkpoint, tmp_path / "exported"), tmp_path / "cache", "me/spiral")
    drawn = Pretrained("hf:me/spiral").sample(n=4, seed=2)
    assert torch.equal(drawn, Pretrained(checkpoint).sample(n=4, seed=2))
    assert torch.equal(drawn, Pretrained(f"hf:me/spiral@{COMMIT}").sample(n=4, seed=2))
    status, _, err = command("scripts/sample.py", "hf:me/spiral", "n=2")
    assert status == 0, err
    assert (tmp_path / "outputs" / "me--spiral" / "samples_000" / "samples.npz").is_file()


def test_a_config_of_the_hub_is_a_file_from_a_stranger(finished, tmp_path):
    folder = export(finished / "checkpoints" / "last.ckpt", tmp_path / "exported")
    record = json.loads((folder / "config.json").read_text())
    record["config"]["model"] = {"_target_": "os.system", "command": "true"}
    (folder / "config.json").write_text(json.dumps(record))
    put_into_cache(folder, tmp_path / "cache", "me/evil")
    with pytest.raises(UserError, match=r"os\.system is refused"):
        Pretrained("hf:me/evil")


def test_what_is_not_there_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.bin").write_bytes(b"x")
    put_into_cache(tmp_path / "other", tmp_path / "cache", "me/other")
    for name, words in (
        ("me/nothing", "the hub is not reached"),
        ("spiral", "the user is missing"),
        ("me/a b", "is no name of a model on the hub"),
        ("me/other", "holds no config.json and model.safetensors of litdiffusion"),
    ):
        with pytest.raises(UserError, match=words) as error:
            Pretrained(f"hf:{name}")
        assert "\n" not in str(error.value)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        Pretrained("hf:me/spiral")


def test_an_export_is_pushed_with_its_card_and_pictures(trained, tmp_path, command, server):
    run = trained("data.size=600", "schedule.steps=25", "+callbacks.final_samples.points=100")
    checkpoint = run / "checkpoints" / "last.ckpt"
    (checkpoint.parent / "evaluation_000").mkdir()
    table = "sampler,calls,n,energy,energy_spread\nddim,25,100,0.1234567,0.0345\n"
    (checkpoint.parent / "evaluation_000" / "quality.csv").write_text(table)
    status, out, err = command("scripts/export.py", f"ckpt={checkpoint}", "push=me/spiral")
    assert status == 0, err
    assert "pushed to https://hub/me/spiral" in out
    files = server.sent["me/spiral"]
    assert {"model.safetensors", "config.json", "README.md", "samples.png", "trajectory.gif"} <= set(files)
    card = hub.ModelCard(files["README.md"].decode())
    assert (card.data.library_name, card.data.license) == ("litdiffusion", None)
    for text in ("# me/spiral", 'Pretrained("hf:me/spiral")', "![Samples](samples.png)", "| data | Spiral", "4 steps"):
        assert text in card.text
    assert "| val/loss |" in card.text
    assert "| ddim | 25 | 100 | 0.1235 ± 0.035 |" in card.text
    assert str(tmp_path) not in card.text


def test_a_run_is_pushed_at_its_end_and_a_failed_push_loses_nothing(tmp_path, command, server):
    words = [*BARE_RUN, "data.size=600", "schedule.steps=25", "name=a", "push=me/spiral"]
    server.error = None
    honest = server.create_repo

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    server.create_repo = refuse
    status, _, err = command("train.py", *words)
    assert status == 0, err
    assert "push=me/spiral: the hub is not reached (no route to host)" in err
    assert f"litdiffusion export ckpt={tmp_path}/outputs/a/checkpoints/last.ckpt push=me/spiral" in err
    server.create_repo = honest
    status, out, err = command("train.py", *words)  # complete: the same command pushes again
    assert status == 0, err
    assert "is complete" in out
    assert "pushed to https://hub/me/spiral" in out
    card = server.sent["me/spiral"]["README.md"].decode()
    assert "data.size=600" in card
    assert "push=" not in card


def test_a_push_that_cannot_succeed_is_refused_before_training(tmp_path, command, server, monkeypatch):
    words = [*BARE_RUN, "data.size=600", "schedule.steps=25", "name=a"]

    def refused(*more: str) -> str:
        status, _, err = command("train.py", *words, *more)
        assert status == 2
        assert not (tmp_path / "outputs" / "a" / "checkpoints").exists()
        assert len(err.strip().splitlines()) == 1
        return err

    assert "push=spiral is no name of a model on the hub" in refused("push=spiral")
    server.error = OSError("no route to host")
    assert "the hub is not reached (no route to host)" in refused("push=me/spiral")
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    assert "HF_HUB_OFFLINE is set" in refused("push=me/spiral")
    monkeypatch.setattr(hub, "get_token", lambda: None)
    assert "needs a token of the hub" in refused("push=me/spiral")
    status, _, err = command("scripts/export.py", "ckpt=x.ckpt", "push=me/spiral")
    assert (status, "needs a token of the hub" in err) == (2, True)
