"""Every yaml under conf/ composes and trains a step; what conf/ says agrees with what the code accepts."""

import re
from pathlib import Path

import pytest
import torch
from conftest import CONF, NOT_RUN, TINY_UNET, composed
from fakes import saved_pictures, write_cifar10, write_mnist, write_pictures
from omegaconf import OmegaConf
from parts import words_for_net
from tables import points, write_csv

from litdiffusion.config.make import make
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.pretrained.masks import Mask

IMAGES = ("mnist", "fashion_mnist", "kmnist", "cifar10", "digits", "image_folder")
SMALL_NET = ("model=unet", "model.channels=[4]", "model.blocks=1", "data.batch_size=8")
GROUPS = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name != "__pycache__")
CHOICES = [(group.name, path.stem) for group in GROUPS for path in sorted(group.glob("*.yaml"))]


NEEDS = {  # a choice that does not fit the default chain, and what it does fit
    ("schedule", "single"): ["recipe=dsm"],
    ("schedule", "flow"): ["recipe=flow"],
    ("sampler", "langevin"): ["recipe=dsm"],
    ("sampler", "annealed_langevin"): ["recipe=ncsn"],
    ("sampler", "ode"): ["recipe=vp"],
    ("metrics", "classifier"): TINY_UNET,
    ("metrics", "inception"): TINY_UNET,
    ("metrics", "fid"): TINY_UNET,
    ("guide", "autoguidance"): ["guidance=1"],  # test_guidance gives it a checkpoint
    ("guide", "classifier"): [*TINY_UNET, "guidance=1"],
}


def overrides_for(group: str, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a choice needs beside itself to run in a second."""
    monkeypatch.setenv("LITDIFFUSION_DATA", str(tmp_path))
    if group == "data" and choice in IMAGES:
        for name in ("MNIST", "FashionMNIST", "KMNIST"):
            write_mnist(tmp_path, name)
        write_cifar10(tmp_path, monkeypatch)
        write_pictures(tmp_path / "pictures")
        extra = [f"data.path={tmp_path}/pictures", "data.image_size=[12,16]"] if choice == "image_folder" else []
        return [f"data={choice}", *SMALL_NET, "data.val_size=8", *extra]
    if (group, choice) == ("data", "table"):
        return ["data=table", f"data.path={write_csv(tmp_path / 't.csv', points(300))}"]
    if (group, choice) == ("data", "torchvision"):
        fake = "data.options={size: 40, image_size: [3, 8, 8]}"
        return ["data=torchvision", "data.name=FakeData", fake, *SMALL_NET, "data.val_size=8"]
    if (group, choice) == ("data", "huggingface"):
        return ["data=huggingface", f"data.path={saved_pictures(tmp_path)}", *SMALL_NET, "data.val_size=8"]
    if choice == "autoencoder":
        return ["data=digits", "recipe=autoencoder", "model=autoencoder", f"{group}={choice}"]
    if group == "model":
        if choice.startswith("diffusers"):
            pytest.importorskip("diffusers", reason="nets of another package")
        return words_for_net(choice)
    return [f"{group}={choice}", *NEEDS.get((group, choice), [])]


INPAINTING = ("mask", "inpainting")
OTHERS = ("logger", "callbacks", "experiment", "trainer", *INPAINTING)
TRAINED = [("codec", "autoencoder"), ("codec", "diffusers_vae")]
"""They need a trained autoencoder; tests/test_latent.py trains with each."""
STEP = [choice for choice in CHOICES if choice[0] not in OTHERS and choice not in TRAINED]


@pytest.mark.parametrize(("group", "choice"), [choice for choice in CHOICES if choice[0] in INPAINTING])
def test_every_choice_of_inpainting_is_built(group, choice):
    cfg = composed(f"{group}={choice}", "steps=3", "variance=forward", config_name="inpaint")
    part = make(cfg[group], group, known=torch.zeros(1, 1, 4, 4), mask=torch.ones(1, 1, 4, 4))
    assert isinstance(part, {"mask": Mask, "inpainting": Sampler}[group])


@pytest.mark.parametrize(("group", "choice"), STEP, ids=lambda value: value)
@pytest.mark.filterwarnings("ignore:the noise schedule ends at alpha = 0.36")
def test_every_choice_trains_a_step(group, choice, fitted, tmp_path, monkeypatch):
    experiment = fitted(*overrides_for(group, choice, tmp_path, monkeypatch), "trainer.max_steps=1")
    assert experiment.trainer.global_step == 1
    weights = experiment.module.trained.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())


RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml") if path.stem != "autoencoder")
"""Those of diffusions."""


@pytest.mark.parametrize("data", [["data=gaussian_mixture"], TINY_UNET], ids=["1-D", "images"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_and_samples_vectors_and_images(recipe, data, fitted):
    short = {"dsm": ["sampler.steps=3"], "ncsn": ["schedule.steps=3", "sampler.inner_steps=2"]}
    chain = ["schedule.steps=25"] if recipe.startswith("ddpm") else ["sampler.steps=4"]
    module = fitted(f"recipe={recipe}", *data, *short.get(recipe, chain), "trainer.max_steps=1").module
    denoiser = module.sampling_denoiser()
    start = module.sampler.prior(denoiser.schedule, torch.empty(2, *module.shape))
    assert module.sampler.sample(denoiser, start).isfinite().all()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
@pytest.mark.filterwarnings("ignore:the noise schedule ends at alpha = 0.36")
def test_every_experiment_trains_a_step(name, fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("LITDIFFUSION_DATA", str(tmp_path))
    write_mnist(tmp_path, train=600)
    write_cifar10(tmp_path, monkeypatch)
    cfg = composed(f"experiment={name}", "callbacks=none")
    small = ["data.val_size=16", "data.batch_size=16"] if cfg.data.get("root") is not None else []
    small += [f"callbacks.{callback}=null" for callback in cfg.callbacks]  # its own, which take their time
    small += ["model.channels=[4,8,8,8]", "model.blocks=1"] if name in NOT_RUN else []  # made for a GPU
    if first := OmegaConf.select(cfg, "codec.experiment"):
        fitted(f"experiment={first}", *small, "trainer.max_steps=1").trainer.save_checkpoint(tmp_path / "first.ckpt")
        small.append(f"codec.ckpt={tmp_path / 'first.ckpt'}")
    experiment = fitted(f"experiment={name}", *small, "trainer.max_steps=1")
    assert experiment.trainer.global_step == 1


def test_every_experiment_states_what_was_measured():
    for path in (CONF / "experiment").glob("*.yaml"):
        text = path.read_text()
        assert all(f"# {word}:" in text for word in ("Command", "Measured")), path.name


@pytest.mark.parametrize("group", ["logger", "callbacks"])
def test_loggers_and_callbacks_are_built(group, tmp_path):
    for path in sorted((CONF / group).glob("*.yaml")):
        if path.stem in ("tensorboard", "many"):
            pytest.importorskip("tensorboard")
        cfg = composed(f"{group}={path.stem}")
        cfg.derived.run_dir, cfg.derived.monitor, cfg.derived.mode = str(tmp_path), "val/loss", "min"
        for name, node in cfg[group].items():
            make(node, f"{group}.{name}", run_dir=tmp_path, run_name="test", quality=None)


def test_every_trainer_composes_with_a_budget():
    for path in sorted((CONF / "trainer").glob("*.yaml")):
        trainer = composed(f"trainer={path.stem}").trainer
        assert (trainer.max_steps, trainer.max_epochs) == (6000, None)


def test_every_recipe_is_five_overrides():
    for recipe in RECIPES:
        text = (CONF / "recipe" / f"{recipe}.yaml").read_text()
        words = re.findall(r"override /(\w+):", text)
        assert words == ["schedule", "parameterization", "times", "weighting", "sampler"], recipe


def test_recipes_pick_five_parts_and_single_words_win_over_them():
    recipe = composed("recipe=ddpm_mean")
    assert recipe.parameterization._target_.endswith("PosteriorMean")
    assert recipe.weighting._target_.endswith("Variational")
    swapped = composed("recipe=ddpm_mean", "weighting=snr", "schedule=cosine")
    assert swapped.weighting._target_.endswith("SNR")
    assert swapped.schedule._target_.endswith("CosineChain")


def test_a_callback_can_be_taken_out_by_null(built):
    cfg = composed("callbacks.trajectory=null")
    assert cfg.callbacks.trajectory is None
    assert cfg.callbacks.last is not None
