"""Random overrides train a step or end in one line: the short form of ``scripts/torture_configs.py``."""

import random

import pytest
import torture_configs

from litdiffusion.errors import UserError


@pytest.mark.slow
def test_12_random_cases_train_or_end_in_one_line():
    with torture_configs.command_line():
        rows = [torture_configs.play(seed, limit=60) for seed in range(12)]
    assert not [row for row in rows if row["failed"]]
    assert {"trained", "refused"} <= {row["kind"] for row in rows}


def test_cases_are_a_function_of_the_seed():
    first, second, other = (torture_configs.draw(random.Random(seed)) for seed in (3, 3, 4))
    assert first == second != other


@pytest.mark.parametrize(
    ("status", "out", "err"),
    [
        (0, "", ""),  # nothing was trained
        (2, "", ""),  # nothing was said
        (2, "", "error: model=unett is not known\nand more\n"),
        (1, "", "Traceback (most recent call last):\n"),
        (3, "", "error: model=unett is not known\n"),
    ],
)
def test_what_a_user_could_not_act_on_counts_as_a_failure(status, out, err):
    assert torture_configs.judge(status, out, err).failed


def test_one_line_and_one_step_do_not():
    assert not torture_configs.judge(2, "", "error: model=unett is not known\n").failed
    assert not torture_configs.judge(0, "run folder: x\n", "warning: alpha = 0.36\n").failed


def test_a_net_that_refers_to_the_shape_of_the_data_trains_from_the_command_line(tmp_path, monkeypatch, recwarn):
    pytest.importorskip("diffusers", reason="the third-party U-Net needs diffusers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [])
    verdict = torture_configs.run(["data=digits", "model=diffusers_unet"], tmp_path / "run", 60)
    assert verdict.kind == "trained", verdict.output


@pytest.mark.parametrize("part", ["data", "schedule", "parameterization", "times", "weighting", "sampler"])
def test_a_part_of_another_kind_is_refused(part, built):
    with pytest.raises(UserError, match=rf"{part}\._target_=torch.nn.Identity makes Identity, which is no"):
        built(f"{part}._target_=torch.nn.Identity", "data.size=600")
