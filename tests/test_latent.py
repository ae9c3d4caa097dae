"""Autoencoders and latent diffusion: the loss in closed form, exact resume, and codecs in every door."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BARE_RUN, TINY, composed
from test_cli import one_error
from torch import nn

from litdiffusion.build import Run, build
from litdiffusion.codecs import Autoencoded, Identity, ReconstructionObjective, Standardise
from litdiffusion.commands.training import train
from litdiffusion.errors import UserError
from litdiffusion.nets import Autoencoder
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.exporting import export
from litdiffusion.pretrained.inpainting import inpaintings
from litdiffusion.pretrained.problems import hidden_images
from litdiffusion.training import AutoencoderModule
from litdiffusion.training.checkpoints import read_checkpoint

SMALL = ["data=digits", "data.batch_size=8", "model.channels=[8,8]", "optimizer=adamw", "lr_schedule=constant"]
FIRST = ["recipe=autoencoder", "model=autoencoder", *SMALL]
BARE = [*TINY, "callbacks.progress_bar=null", "trainer.val_check_interval=2"]
LATENT = ["model=unet", "recipe=flow", "data=digits", "data.batch_size=8", "model.channels=[8]", "model.blocks=1"]
LATENT += ["lr_schedule=constant", "trainer.val_check_interval=2"]


class Linear(nn.Module):
    """An autoencoder whose latent is ``Q x`` with orthogonal rows Q (k, d): PCA if they are the data's axes."""

    def __init__(self, rows: torch.Tensor, log_variance: float = -60.0):
        super().__init__()
        self.rows, self.log_variance = nn.Parameter(rows), log_variance

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        mean = (x.flatten(1) @ self.rows.T)[..., None, None]
        return torch.cat([mean, torch.full_like(mean, self.log_variance)], dim=1)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z.flatten(1) @ self.rows).view(-1, 1, 2, 2)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained autoencoder."""
    folder = tmp_path_factory.mktemp("first") / "autoencoder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITDIFFUSION_DATA", str(folder.parent))
        train(composed(*BARE, *FIRST), Run(folder, "autoencoder"))
    return folder


def latent_run(folder: Path, first_stage: Path, *words: str) -> Path:
    train(composed(*BARE_RUN, *LATENT, "codec=autoencoder", f"codec.ckpt={first_stage}", *words), Run(folder, "latent"))
    return folder


def test_the_loss_is_error_and_divergence_in_closed_form():
    """z = m of one coordinate of four: the others are lost. KL(N(m, s²) | N(0, 1)) = (m² + s² - log s² - 1) / 2."""
    x = torch.tensor([[1.0, 2.0, -1.0, 3.0]]).view(1, 1, 2, 2)
    losses = ReconstructionObjective(kl_weight=0.5)(Linear(torch.eye(4)[:1], -2.0), x, noise=None)
    kl = (1.0 + torch.tensor(-2.0).exp() + 2.0 - 1) / 2
    assert losses.reconstruction.item() == pytest.approx((4 + 1 + 9) / 4)
    assert losses.kl.item() == pytest.approx(kl.item())
    assert losses.value.item() == pytest.approx(3.5 + 0.5 * kl.item())


def test_the_noise_of_the_latent_has_its_deviation():
    """decode(m + s eps) - x has the variance s² in each coordinate of an orthogonal code."""
    torch.manual_seed(0)
    x = torch.randn(20_000, 1, 2, 2)
    losses = ReconstructionObjective(kl_weight=0.0)(Linear(torch.eye(4), -1.0), x)
    assert losses.reconstruction.mean().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.02)


def test_the_perceptual_term_is_the_distance_of_features_and_moves_the_decoder():
    net, x = Linear(torch.eye(4)[:2]), torch.arange(4.0).view(1, 1, 2, 2)
    losses = ReconstructionObjective(0.0, 0.5, features=lambda x: x.flatten(1) ** 2)(net, x, noise=None)
    assert losses.perceptual.item() == pytest.approx((2.0**4 + 3.0**4) / 4)
    assert losses.value.item() == pytest.approx((4 + 9) / 4 + 0.5 * (16 + 81) / 4)
    with pytest.raises(UserError, match="needs the features of a trained classifier"):
        ReconstructionObjective(perceptual_weight=0.5)


def test_a_perceptual_run_learns_from_the_classifier_of_its_data(tmp_path):
    words = ["objective.perceptual_weight=0.1", "+metrics.features.steps=10", "trainer.max_steps=2"]
    train(composed(*BARE, *FIRST, *words), Run(tmp_path / "run", "autoencoder"))
    metrics = json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]
    assert metrics["val/perceptual"] > 0


def test_gradients_flow_through_a_codec_to_its_latents():
    """As guidance by a classifier of decoded images needs."""
    codec = Autoencoded(Linear(torch.eye(4)), mean=[0.0] * 4, std=[2.0] * 4)
    latent = torch.randn(3, 4, 1, 1, requires_grad=True)
    codec.decode(latent).sum().backward()
    assert torch.equal(latent.grad, torch.full_like(latent, 2.0))
    assert not any(weight.requires_grad for weight in codec.parameters())


def test_a_linear_code_of_full_rank_keeps_the_data_and_unit_scale():
    torch.manual_seed(0)
    x = torch.randn(4000, 1, 2, 2) * torch.tensor([[0.2, 1.0], [3.0, 0.5]]) + 2
    rows, _ = torch.linalg.qr(torch.randn(4, 4))
    codec = Autoencoded(Linear(rows))
    codec.measured_on(x)
    latent = codec.encode(x)
    assert torch.allclose(codec.decode(latent), x, atol=1e-4)
    assert latent.mean(0).abs().max() < 1e-3
    assert torch.allclose(latent.std(0), torch.ones(4, 1, 1), atol=1e-3)


def test_codecs_of_a_run_are_frozen_and_stored_once(tmp_path, first_stage):
    folder = latent_run(tmp_path / "run", first_stage)
    state = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    own = {k: v for k, v in state.items() if k.startswith("codec.")}
    source = read_checkpoint(first_stage / "checkpoints" / "last.ckpt")["state_dict"]
    assert own
    assert all(torch.equal(v, source[k.replace("codec.model.", "ema.model.")]) for k, v in own.items())
    assert not any("autoencoder" in k or k.startswith("ema.codec") for k in state)


def test_a_latent_model_needs_nothing_but_its_file(tmp_path, first_stage):
    """Samples of the checkpoint and of the export are equal, and are images, with the autoencoder's folder gone."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "ae.ckpt").write_bytes((first_stage / "checkpoints" / "last.ckpt").read_bytes())
    folder = latent_run(tmp_path / "run", source / "ae.ckpt")
    (source / "ae.ckpt").unlink()
    path = folder / "checkpoints" / "last.ckpt"
    pretrained = Pretrained(path)
    samples = pretrained.sample(4, seed=1)
    assert samples.shape == (4, 1, 8, 8)
    assert -1 <= samples.min() < samples.max() <= 1
    assert torch.equal(Pretrained(export(path, tmp_path / "export")).sample(4, seed=1), samples)
    pretrained.draws(pretrained.sampler, torch.device("meta"))  # as on an accelerator, the codec goes with the net
    assert all(weight.is_meta for weight in pretrained.codec.parameters())


def test_runs_in_two_attempts_equal_those_in_one(tmp_path, first_stage):
    whole = latent_run(tmp_path / "whole", first_stage)
    half = latent_run(tmp_path / "half", first_stage, "trainer.max_steps=2")
    latent_run(tmp_path / "half", first_stage)
    assert _state(whole).keys() == _state(half).keys()
    assert all(torch.equal(value, _state(half)[name]) for name, value in _state(whole).items())


@pytest.mark.slow
def test_autoencoders_in_two_attempts_equal_those_in_one(tmp_path, first_stage):
    half = tmp_path / "half"
    train(composed(*BARE, *FIRST, "trainer.max_steps=2"), Run(half, "autoencoder"))
    train(composed(*BARE, *FIRST), Run(half, "autoencoder"))
    assert all(torch.equal(value, _state(half)[name]) for name, value in _state(first_stage).items())


def test_lightning_loads_an_autoencoder_and_samples_are_refused(first_stage):
    path = first_stage / "checkpoints" / "last.ckpt"
    module = AutoencoderModule.load_from_checkpoint(path)
    assert all(torch.equal(value, _state(first_stage)[name]) for name, value in module.state_dict().items())
    with pytest.raises(UserError, match="holds an autoencoder; a diffusion takes it by codec=autoencoder"):
        Pretrained(path)


def test_an_autoencoder_leaves_pictures_and_numbers(first_stage):
    pictures = {path.name for path in (first_stage / "pictures").iterdir()}
    assert pictures == {"reconstructions_step_000002.png", "reconstructions_step_000004.png", "latent_walk.png"}
    metrics = json.loads((first_stage / "run.json").read_text())["metrics"]
    assert {"val/loss", "val/reconstruction", "val/kl", "val/latent_std"} <= metrics.keys()


def test_validation_numbers_are_those_of_all_items(tmp_path, first_stage):
    """The reconstruction error of run.json equals one computed here from the file's weights."""
    experiment = build(composed(*BARE, *FIRST, "logger=none"), Run(tmp_path))
    module = experiment.module
    module.load_state_dict(read_checkpoint(first_stage / "checkpoints" / "last.ckpt")["state_dict"])
    x = experiment.facts.reference(10**6)
    with torch.no_grad():
        error = (module.reconstructed(x) - x).square().mean().item()
    metrics = json.loads((first_stage / "run.json").read_text())["metrics"]
    assert metrics["val/reconstruction"] == pytest.approx(error, rel=1e-5)
    assert metrics["test/reconstruction"] == pytest.approx(error, rel=1e-5)  # digits hold out no further images
    assert metrics["test/latent_std"] == pytest.approx(metrics["val/latent_std"], rel=1e-5)


def test_published_autoencoders_of_diffusers_are_codecs(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="an autoencoder of another package")
    torch.manual_seed(0)
    sizes = {"block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 2, "layers_per_block": 1}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    vae = diffusers.AutoencoderKL(in_channels=1, out_channels=1, **sizes, **blocks).eval()
    vae.save_pretrained(tmp_path / "vae")
    words = ["codec=diffusers_vae", f"codec.ckpt={tmp_path / 'vae'}"]
    train(composed(*BARE_RUN, *LATENT, *words), Run(tmp_path / "run", "latent"))
    pretrained = Pretrained(tmp_path / "run" / "checkpoints" / "last.ckpt")
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    latent = pretrained.codec.encode(x)
    with torch.no_grad():
        expected = vae.encode(x).latent_dist.mean
        decoded = vae.decode(expected).sample.clamp(-1, 1)
    mean, std = (torch.tensor(v).view(1, 2, 1, 1) for v in (pretrained.codec.mean, pretrained.codec.std))
    assert torch.allclose(latent * std + mean, expected, atol=1e-5)
    assert torch.allclose(pretrained.codec.decode(latent), decoded, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["codec=autoencoder"], "needs a trained autoencoder: codec.ckpt="),
        (["codec=autoencoder", "codec.ckpt=missing.ckpt"], "no checkpoint at missing.ckpt"),
        (["codec=autoencoder", "codec.ckpt=DIFFUSION"], "holds a diffusion, not an autoencoder"),
    ],
)
def test_what_is_no_autoencoder_is_refused(tmp_path, first_stage, words, line):
    if "DIFFUSION" in words[-1]:
        words = [words[0], f"codec.ckpt={latent_run(tmp_path / 'run', first_stage)}"]
    with pytest.raises(UserError, match=line):
        build(composed(*TINY, *LATENT, *words), Run(tmp_path / "other"))


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="multiples of 4, got 30 x 28"):
        Autoencoder((1, 30, 28), channels=[8, 8, 8])


def test_a_path_of_the_checkpoint_is_not_opened(tmp_path, first_stage):
    folder = latent_run(tmp_path / "run", first_stage)
    assert "ckpt" not in Pretrained(folder / "checkpoints" / "last.ckpt").config.codec


def test_a_dry_run_of_two_stages_plans_the_first_and_trains_nothing(tmp_path, command):
    status, out, err = command("train.py", "experiment=digits_latent", "dry_run=true", f"hydra.run.dir={tmp_path}/run")
    assert status == 0, err
    assert "codec.experiment comes first" in out
    assert "litdiffusion.nets.Autoencoder" in out
    assert not (tmp_path / "run").exists()


# Inpainting: the known part of the latent


class Patches(nn.Module):
    """An autoencoder that loses nothing: the pixels of each 2 x 2 patch are the channels of a latent."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_unshuffle(x, 2).repeat(1, 2, 1, 1)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(z, 2)


def test_a_latent_is_known_where_its_whole_patch_is():
    codec, mask = Autoencoded(Patches()), torch.rand(50, 3, 6, 4) < 0.9
    known = -nn.functional.max_pool2d(-mask.float(), 2)  # independent: the smallest value of each patch
    expected = known.amin(1, keepdim=True).bool().expand(50, 12, 3, 2)
    assert torch.equal(codec.latent_mask(mask), expected)
    assert 0 < expected.float().mean() < 1
    assert codec.latent_mask(torch.ones(1, 3, 6, 4, dtype=torch.bool)).all()
    assert torch.equal(Identity().latent_mask(mask), mask)
    assert torch.equal(Standardise([0.0], [2.0]).latent_mask(mask), mask)


@pytest.mark.parametrize(
    ("latent", "message"),
    [((4,), r"latents of shape \(4,\) have no places"), ((1, 4, 3), "8 x 8 do not divide into the 4 x 3 patches")],
)
def test_latents_without_places_of_their_own_cannot_be_kept(latent, message, monkeypatch):
    monkeypatch.setattr(Autoencoded, "latent_shape", lambda self, shape: latent)
    with pytest.raises(UserError, match=message):
        Autoencoded(Patches()).latent_mask(torch.ones(2, 1, 8, 8, dtype=torch.bool))


@pytest.fixture(scope="module")
def latent_model(first_stage, tmp_path_factory) -> Path:
    """The checkpoint of a tiny latent diffusion of digits with classes and their mean grey."""
    folder = latent_run(tmp_path_factory.mktemp("latent") / "run", first_stage, "conditional=[class,grey]")
    return folder / "checkpoints" / "last.ckpt"


def test_no_hidden_pixel_can_change_a_sample_and_known_ones_do(latent_model):
    words = [f"ckpt={latent_model}", "mask=left", "n=3", "samples=2", "steps=3", "resample=2", "variance=posterior"]
    cfg, pretrained = composed(*words, config_name="inpaint"), Pretrained(latent_model)
    problem = hidden_images(cfg, pretrained.data())
    told = pretrained.told(3, [1, 2, 3], {"grey": 0.3})

    def drawn(items: torch.Tensor) -> torch.Tensor:
        return inpaintings(cfg, pretrained, problem._replace(items=items).encoded(pretrained.codec), told)

    own = drawn(problem.items)
    for hidden in (1.0, torch.nan):
        assert torch.equal(drawn(torch.where(problem.mask, problem.items, hidden)), own)
    assert not torch.equal(drawn(torch.where(problem.mask, -problem.items, problem.items)), own)


def test_latents_are_inpainted_around_what_is_known(latent_model, command, tmp_path):
    def drawn(*words: str) -> dict[str, np.ndarray]:
        few = ["n=3", "samples=2", "steps=3", "resample=2", f"out={tmp_path}/{len(list(tmp_path.iterdir()))}"]
        status, out, err = command("scripts/inpaint.py", f"ckpt={latent_model}", *few, *words)
        assert status == 0, err
        assert "known: 50 % of the pixels, 50 % of the latents" in out
        with np.load(out.strip().rpartition(": ")[2] + "/inpainting.npz") as file:
            return dict(file)

    own, asked = drawn("mask=left"), drawn("mask=left", "condition.grey=[0.25,0.3]")
    for found in (own, asked):
        rows = np.broadcast_to(found["mask"][:, None], found["samples"].shape)
        expected = np.broadcast_to(found["items"][:, None], rows.shape)
        assert np.array_equal(found["samples"][rows], expected[rows])
        assert (found["samples"] != expected)[~rows].any()
    grey = (own["items"].reshape(3, -1).mean(1) + 1) / 2
    np.testing.assert_allclose(own["conditions"][:, 0], grey, rtol=1e-5)
    np.testing.assert_allclose(asked["conditions"][:, 0], [0.25, 0.3, 0.25], rtol=1e-6)
    assert np.array_equal(asked["class_labels"], own["class_labels"])
    assert own["condition_names"].tolist() == ["grey"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mask=random"], "the mask hides part of every patch of 2 x 2 pixels in"),
        (["condition.gray=0.3"], "the model has no condition gray; did you mean grey?"),
    ],
)
def test_what_latents_cannot_keep_or_be_told_is_one_line(words, message, latent_model, command):
    status, _, err = command("scripts/inpaint.py", f"ckpt={latent_model}", *words)
    assert message in one_error(status, err)


@pytest.fixture
def both_stages(tmp_path) -> list[str]:
    """The words of a short run of experiment=digits_latent, with a first stage of two steps."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    short = "trainer: {max_steps: 2, val_check_interval: 2}"
    first = f"# @package _global_\ndefaults: [digits_autoencoder]\n{short}\n"
    (tmp_path / "conf" / "experiment" / "short.yaml").write_text(first)
    words = ["--config-dir", str(tmp_path / "conf"), "experiment=digits_latent", "codec.experiment=short"]
    words += ["trainer.max_steps=2", "trainer.val_check_interval=2", "callbacks.live_quality=null"]
    return [*words, "callbacks.progress_bar=null", "metrics=none", f"hydra.run.dir={tmp_path}/run"]


@pytest.mark.slow
def test_one_command_trains_both_stages_once(tmp_path, command, both_stages):
    status, out, err = command("train.py", *both_stages)
    assert status == 0, err
    assert "training:" not in err  # the first stage obeys callbacks.progress_bar=null too
    assert Pretrained(tmp_path / "run" / "checkpoints" / "last.ckpt").sample(2).shape == (2, 1, 8, 8)
    status, out, err = command("train.py", *both_stages)
    assert status == 0, err
    assert out.count("is complete") == 2


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_latents_are_encoded_once_and_train_as_those_encoded_at_every_step(tmp_path, first_stage, monkeypatch):
    """Encoding 64 items together or 500 differs in the last bits only."""
    encoded, encode = [], Autoencoded.encode
    monkeypatch.setattr(Autoencoded, "encode", lambda self, x: (encoded.append(len(x)), encode(self, x))[1])
    cache, whole = f"codec.cache={tmp_path / 'latents'}", ["data.batch_size=500", "trainer.max_steps=4"]
    rows = "logger=csv", "trainer.log_every_n_steps=1"
    latent_run(tmp_path / "short", first_stage, cache, "data.batch_size=500", "trainer.max_steps=2")
    assert not (tmp_path / "latents").exists()  # less than one pass over 1500 items
    encoded.clear()
    latent_run(tmp_path / "first", first_stage, cache, *whole)
    assert (encoded.count(64), encoded.count(500)) == (1500 // 64 + 297 // 64, 0)
    (file,) = (tmp_path / "latents").iterdir()
    encoded.clear()
    again = latent_run(tmp_path / "again", first_stage, cache, *whole, *rows)
    assert not {64, 500} & {*encoded}
    plain = latent_run(tmp_path / "plain", first_stage, "codec.cache=null", *whole, *rows)
    assert encoded.count(500) > 0
    assert list((tmp_path / "latents").iterdir()) == [file]
    for name in ("train/loss", "val/loss"):
        kept, anew = ([float(row[name]) for row in rows_of(run) if row.get(name)] for run in (again, plain))
        assert len(kept) == len(anew) > 1
        assert kept == pytest.approx(anew, rel=1e-4)


@pytest.mark.slow
def test_a_run_that_began_without_kept_latents_goes_on_without_them(tmp_path, first_stage):
    """So a short run that is made longer equals, to the last bit, one that never saw a file of latents."""
    cache, size = f"codec.cache={tmp_path / 'latents'}", "data.batch_size=500"
    folder = latent_run(tmp_path / "run", first_stage, cache, size, "trainer.max_steps=2")
    latent_run(folder, first_stage, cache, size, "trainer.max_steps=4")
    plain = latent_run(tmp_path / "plain", first_stage, "codec.cache=null", size, "trainer.max_steps=4")
    states = [read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (folder, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_another_autoencoder_or_scale_has_other_latents(tmp_path, first_stage):
    words = f"codec.cache={tmp_path / 'latents'}", "data.batch_size=1500", "trainer.max_steps=1"
    latent_run(tmp_path / "one", first_stage, *words)
    latent_run(tmp_path / "two", first_stage, *words, "codec.std=[1.0,1.0,1.0,1.0]")
    assert len(list((tmp_path / "latents").iterdir())) == 2


def test_images_that_are_changed_at_random_are_encoded_at_every_step(tmp_path, first_stage, capsys):
    words = [f"codec.cache={tmp_path / 'latents'}", "data.augment.flip=true"]
    latent_run(tmp_path / "run", first_stage, "trainer.max_steps=1", *words)
    assert "latents are encoded at every step: images are randomly changed" in capsys.readouterr().out
    assert not (tmp_path / "latents").exists()
