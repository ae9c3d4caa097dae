"""Random mirror images and shifts in training: what they do, and that runs repeat them."""

from pathlib import Path

import pytest
import torch
from conftest import BARE_RUN, TINY_UNET, composed

from litdiffusion.build import Run
from litdiffusion.data import Augment, Digits
from litdiffusion.errors import UserError
from litdiffusion.training.checkpoints import read_checkpoint

IMAGES = torch.arange(64 * 2 * 5 * 7, dtype=torch.float32).view(64, 2, 5, 7)
AUGMENTED = [*TINY_UNET, "data.augment={flip: true, shift: 2}", "metrics=none"]


def test_flips_mirror_about_half_of_the_images():
    found = Augment(flip=True)(IMAGES, 3)
    flipped = (found == IMAGES.flip(-1)).flatten(1).all(1)
    kept = (found == IMAGES).flatten(1).all(1)
    assert (flipped ^ kept).all()
    assert 16 < int(flipped.sum()) < 48  # 32 ± 4 standard errors


def test_shifts_move_rows_and_columns_and_reflect_the_border():
    found = Augment(shift=2)(IMAGES, 3)
    padded = torch.nn.functional.pad(IMAGES, (2, 2, 2, 2), mode="reflect")
    moves = [(dy, dx) for dy in range(5) for dx in range(5)]
    crops = torch.stack([padded[:, :, dy : dy + 5, dx : dx + 7] for dy, dx in moves])
    same = (crops == found).flatten(2).all(2)
    assert (same.sum(0) == 1).all()
    assert same.any(1).sum() > 15  # of 25 moves, among 64 images


def test_changes_are_a_function_of_seed_and_position():
    augment = Augment(flip=True, shift=2)
    state = torch.get_rng_state()
    first = augment(IMAGES, 0, 5, 0, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(augment(IMAGES, 0, 5, 0, 1), first)
    others = [augment(IMAGES, *position) for position in ((1, 5, 0, 1), (0, 6, 0, 1), (0, 5, 1, 1), (0, 5, 0, 2))]
    assert not any(torch.equal(other, first) for other in others)


def test_training_sees_changed_images_and_nothing_else_does(built):
    plain, changed = (built(*TINY_UNET, *words, "metrics=none") for words in ((), AUGMENTED[-2:-1]))
    assert plain.module.augment is None
    seen = []
    changed.module.encoded = lambda batch, name: (
        seen.append((name.split()[0], batch.data)) or type(changed.module).encoded(changed.module, batch, name)
    )
    changed.trainer.fit(changed.module, changed.data)
    items = changed.data.train.data.float() / 127.5 - 1
    for name, data in seen:
        known = [bool((items == x).flatten(1).all(1).any()) for x in data]
        held = changed.data.val.data.float() / 127.5 - 1
        if name == "training":
            assert sum(known) < len(known)
        else:
            assert all(bool((held == x).flatten(1).all(1).any()) for x in data[:4])
    assert {name for name, _ in seen} == {"training", "validation"}
    assert torch.equal(changed.data.reference(9), plain.data.reference(9))
    assert torch.equal(changed.data.training_reference(9), plain.data.training_reference(9))
    assert torch.equal(changed.data.test().data, plain.data.test().data)
    assert changed.data.fingerprint() == plain.data.fingerprint()


def test_a_resumed_run_is_bit_equal(tmp_path: Path):
    from litdiffusion.commands.training import train

    def run(folder: str, steps: int) -> dict:
        settings = [*BARE_RUN, *AUGMENTED, f"trainer.max_steps={steps}", "lr_schedule=constant"]
        train(composed(*settings), Run(tmp_path / folder, folder))
        return read_checkpoint(tmp_path / folder / "checkpoints" / "last.ckpt")["state_dict"]

    run("cut", 3)
    whole, resumed = run("whole", 6), run("cut", 6)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_bad_settings_are_refused():
    for settings, message in (
        ({"flipp": True}, r"data.augment.flipp is unknown; did you mean flip\?"),
        ({"shift": 8}, "data.augment.shift=8: must be a whole number of pixels from 0 to 7"),
        ({"flip": 1}, "data.augment.flip=1: must be true or false"),
    ):
        with pytest.raises(UserError, match=message):
            Digits(augment=settings, batch_size=8, seed=0)


def test_cifar10_is_mirrored_and_other_sets_are_not():
    assert composed("data=cifar10").data.augment == {"flip": True, "shift": 0}
    assert composed("data=mnist").data.augment == {"flip": False, "shift": 0}
