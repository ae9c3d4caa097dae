"""An exported model draws the checkpoint's samples, and its files can be read by anybody."""

import json
import re
import textwrap

import pytest
import torch
from conftest import ROOT, TINY_UNET, UNDRAWN
from safetensors.torch import load_file

from litdiffusion.errors import UserError
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export, read_export

BARE = [*UNDRAWN, "schedule.steps=25"]


@pytest.mark.parametrize("weights", ["ema", "raw"])
@pytest.mark.parametrize("part", [["data.size=600"], [*TINY_UNET, "conditional=true"]], ids=["points", "num_classes"])
def test_an_export_draws_the_same_samples_bit_for_bit(part, weights, trained, tmp_path):
    checkpoint = trained(*BARE, *part) / "checkpoints" / "last.ckpt"
    folder = export(checkpoint, tmp_path / "exported", weights)
    ours, theirs = (Pretrained(path, weights).sample(n=6, seed=3) for path in (folder, checkpoint))
    assert torch.equal(ours, theirs)
    assert ours.shape[0] == 6


def test_the_documented_lines_load_an_export(finished, tmp_path, monkeypatch, command):
    checkpoint = finished / "checkpoints" / "last.ckpt"
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "running.md").read_text(), re.DOTALL)
    (code,) = (text for kind, text in blocks if kind == "python" and "Pretrained(" in text)
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    (line,) = (a for kind, text in blocks for a in text.splitlines() if a.startswith("python scripts/export.py"))
    words = [f"ckpt={checkpoint}" if "ckpt=" in word else word for word in line.split("  #")[0].split()[2:]]
    status, out, err = command("scripts/export.py", *words)
    assert status == 0, err
    assert "model.safetensors" in out
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(textwrap.dedent(code), "running.md", "exec"), names)
    drawn = next(value for value in names.values() if isinstance(value, torch.Tensor))
    assert torch.equal(drawn, Pretrained(checkpoint).sample(n=len(drawn), seed=7))


def test_the_files_hold_the_averaged_weights_of_the_net_and_plain_values(finished, tmp_path):
    checkpoint = finished / "checkpoints" / "last.ckpt"
    folder = export(checkpoint, tmp_path / "exported")
    tensors = load_file(folder / "model.safetensors")
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    names = {name.removeprefix("ema.model.net.") for name in stored if name.startswith("ema.model.net.")}
    assert set(tensors) == names
    assert all(torch.equal(value, stored[f"ema.model.net.{name}"]) for name, value in tensors.items())
    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["model"]["_target_"] == "litdiffusion.nets.MLP"
    assert str(tmp_path) not in (folder / "config.json").read_text()  # nothing of where it was trained
    Pretrained(folder).denoiser.net.load_state_dict(tensors)


def test_scripts_take_an_export_for_a_checkpoint(finished, tmp_path, command):
    checkpoint = finished / "checkpoints" / "last.ckpt"
    folder = export(checkpoint, tmp_path / "exported")
    status, _, err = command("scripts/sample.py", f"ckpt={folder}", "n=4", f"out={tmp_path}/drawn")
    assert status == 0, err
    assert (tmp_path / "drawn" / "samples.npz").is_file()


def test_what_is_not_whole_is_named(finished, tmp_path):
    checkpoint = finished / "checkpoints" / "last.ckpt"
    folder = export(checkpoint, tmp_path / "exported")
    with pytest.raises(UserError, match="already holds an exported model"):
        export(checkpoint, folder)
    with pytest.raises(UserError, match="holds only the ema weights"):
        read_export(folder, "raw")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-40])
    with pytest.raises(UserError, match="holds no intact exported model"):
        Pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        Pretrained(folder)
    with pytest.raises(UserError, match=r"config\.json is missing; take a folder that litdiffusion export wrote"):
        Pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"config\.json is missing; take {checkpoint}, since this is a run's folder"):
        Pretrained(checkpoint.parent.parent)
