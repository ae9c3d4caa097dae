"""The comparison of ``scripts/benchmark_others.py`` gives all packages one net and one set, and names absent ones."""

import numpy as np
import pytest
import torch
from benchmark_others import RIVALS, installed
from others.case import Case, make_case
from others.clock import Clock
from others.ddpm_trainer import DiffusionNet, write_images
from others.diffusers_loop import TIMESTEPS, TimestepNet
from others.rival import Rival, Settings, endless, in_blocks, quiet
from PIL import Image

SMALL = {
    "spiral": ("data.size=200", "data.batch_size=16", "model.hidden=8", "recipe=flow"),
    "digits": ("data.batch_size=16", "model.channels=[8]", "model.blocks=1", "recipe=flow"),
}


@pytest.fixture(params=SMALL)
def case(request) -> Case:
    return make_case(request.param, SMALL[request.param])[0]


def test_a_package_that_is_not_installed_is_named_in_one_line(capsys):
    absent = Rival("absent", ("no-such-package", "torch"), None, None)
    present = Rival("present", ("torch",), None, None)
    assert installed([absent, present]) == [present]
    assert capsys.readouterr().out == "absent is left out: not installed (pip install no-such-package)\n"


def test_all_nets_are_one_function_of_the_place_between_data_and_noise(case):
    x, net = case.x[:4], case.net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.1)  # because the U-Net's last layer starts at zero
    t = torch.tensor([0, 333, 666, TIMESTEPS - 1])
    expected = net(x, t / (TIMESTEPS - 1))
    assert not torch.equal(expected, net(x, torch.zeros(4)))
    for_diffusers, for_ddpm = TimestepNet(case), DiffusionNet(case)
    for other in (for_diffusers, for_ddpm):
        other.net.load_state_dict(net.state_dict())
    sequence = x if case.is_image else x[..., None]
    torch.testing.assert_close(for_diffusers(x, t)[0], expected)
    torch.testing.assert_close(for_ddpm(sequence, t).view_as(x), expected)


def test_initial_weights_are_equal(case):
    for a, b in zip(case.net().parameters(), case.net().parameters(), strict=True):
        assert torch.equal(a, b)


def test_data_are_scaled_to_the_unit_range_and_back(case):
    unit = case.to_unit(case.x)
    assert unit.min() == 0
    assert unit.max() == 1
    torch.testing.assert_close(case.from_unit(unit), case.x)


def test_written_images_are_the_data(tmp_path):
    case = make_case("digits", SMALL["digits"])[0]
    write_images(case.x[:3], tmp_path / "images")
    files = sorted((tmp_path / "images").iterdir())
    read = torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files]))[:, None] / 127.5 - 1
    torch.testing.assert_close(read, case.x[:3], atol=1 / 255, rtol=0)


def test_the_clock_counts_the_steps_between_its_two_readings():
    clock = Clock(2, 5)
    for _ in range(5):
        clock.tick()
    (cpu, wall), (last_cpu, last_wall) = clock.readings
    assert clock.pace == ((last_cpu - cpu) / 3, (last_wall - wall) / 3)
    assert min(clock.pace) > 0
    with pytest.raises(ValueError, match="first"):
        Clock(5, 5)


def test_helpers_repeat_batches_and_draw_in_blocks():
    batches = endless([1, 2])
    assert [next(batches) for _ in range(5)] == [1, 2, 1, 2, 1]
    assert in_blocks(5, 2, lambda k: torch.full((k,), k)).tolist() == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_every_package_trains_the_asked_steps_and_draws_in_the_space_of_the_data(rival, case, monkeypatch):
    if rival.missing:
        pytest.skip(f"{', '.join(rival.missing)} not installed")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    ticks = []
    with quiet():
        samples = rival.train(case, 3, Settings(calls=4), lambda: ticks.append(1)).draw(5)
    assert len(ticks) == 3
    assert samples.shape == (5, *case.shape)
    assert samples.isfinite().all()
    assert rival.forces(case)
