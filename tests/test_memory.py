"""A batch that does not fit into memory ends in one line with the largest one that does."""

import numpy as np
import pytest
import torch
from conftest import BARE_RUN, TINY, composed

from litdiffusion.build import Run
from litdiffusion.commands.training import train
from litdiffusion.errors import TrainingError
from litdiffusion.nets import MLP, Autoencoder
from litdiffusion.pretrained import Pretrained

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def room(monkeypatch):
    """Lets a net run out of memory on more than so many items."""

    def limit(net: type, most: int, method: str = "forward") -> None:
        plain = getattr(net, method)

        def limited(self, x, *args):
            if len(x) > most:
                raise FULL
            return plain(self, x, *args)

        monkeypatch.setattr(net, method, limited)

    return limit


@pytest.mark.slow
@pytest.mark.parametrize("most", [2, 37, 511])
def test_the_line_names_the_largest_batch_that_fits(most, room, tmp_path):
    room(MLP, most)
    with pytest.raises(TrainingError) as stop:
        train(composed(*BARE_RUN, "data.batch_size=512", "trainer.num_sanity_val_steps=0"), Run(tmp_path / "run"))
    assert f"512 items does not fit into the memory of cpu, {most} do: set data.batch_size={most} " in str(stop.value)
    assert f"accumulate_grad_batches={-(-512 // most)} keeps" in str(stop.value)


@pytest.mark.slow
def test_what_was_trained_before_stays(room, tmp_path):
    words = [*TINY, "callbacks.progress_bar=null", "data.batch_size=8"]
    train(composed(*words, "trainer.max_steps=2"), Run(tmp_path / "run"))
    room(MLP, 4)
    with pytest.raises(TrainingError, match=r"data\.batch_size=4 .*Last good checkpoint"):
        train(composed(*words, "trainer.max_steps=4", "trainer.num_sanity_val_steps=0"), Run(tmp_path / "run"))
    assert Pretrained(tmp_path / "run" / "checkpoints" / "last.ckpt").sample(4).shape == (4, 2)


def test_memory_that_is_used_up_outside_a_step_is_said_so(room, tmp_path):
    room(MLP, 8)
    words = [*TINY, "callbacks.progress_bar=null", "data.batch_size=8", "trainer.num_sanity_val_steps=0"]
    with pytest.raises(TrainingError, match="though a training step of 8 items fits"):
        train(composed(*words, "callbacks.final_samples.points=9"), Run(tmp_path / "run"))


def test_an_autoencoder_says_the_same(room, tmp_path):
    room(Autoencoder, 5, "encode")
    words = ["recipe=autoencoder", "model=autoencoder", "data=digits", "data.batch_size=8", "model.channels=[8,8]"]
    words += ["optimizer=adamw", "lr_schedule=constant", "trainer.num_sanity_val_steps=0"]
    with pytest.raises(TrainingError, match=r"5 do: set data\.batch_size=5"):
        train(composed(*TINY, "callbacks.progress_bar=null", *words), Run(tmp_path / "run"))


def test_samples_are_drawn_in_parts_that_fit(command, room, tmp_path):
    train(composed(*BARE_RUN), Run(tmp_path / "run"))
    words = [f"ckpt={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}", "n=10", "steps=4", "device=cpu"]
    assert command("scripts/sample.py", *words, f"out={tmp_path / 'whole'}")[0] == 0
    room(MLP, 5)
    status, _, err = command("scripts/sample.py", *words, f"out={tmp_path / 'parts'}")
    assert status == 0, err
    assert "note: 10 samples at once do not fit into the memory of cpu; the network takes 5 at a time" in err
    whole, parts = (np.load(tmp_path / name / "samples.npz")["samples"] for name in ("whole", "parts"))
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)
    room(MLP, 0)
    status, _, err = command("scripts/sample.py", *words, f"out={tmp_path / 'none'}")
    assert status == 2
    assert "error: memory is used up (CUDA out of memory" in err
    assert "Traceback" not in err
