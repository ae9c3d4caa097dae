"""The lottery of ``scripts/torture.py`` finds faults, and repeats what it found."""

import os
import shutil

import pytest
from lottery.chunks import play_chunk, read_results
from lottery.draws import Blow, Draw, draw
from lottery.features import BASES, EXTRAS, Feature
from lottery.table import Table

from litdiffusion.errors import UserError
from litdiffusion.training import checkpoint_io


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    return Table(tmp_path_factory.mktemp("table"))


def blow(fault: str, point: str, share: float, target: str = "checkpoints/last.ckpt", manner: str = "flip") -> Blow:
    return Blow(fault, point, share, 0, 0.5, target, manner)


def test_draws_are_a_function_of_the_seed_and_cover_every_kind():
    draws = [draw(seed) for seed in range(500)]
    assert draws == [draw(seed) for seed in range(500)]
    assert {d.feature.base for d in draws} == set(BASES)
    assert {extra for d in draws for extra in d.feature.extras} == set(EXTRAS)
    assert len({(b.fault, b.point) for d in draws for b in d.blows}) > 150


@pytest.mark.slow
def test_a_draw_is_repeated_exactly(table):
    """Killed while a file is renamed, with a damaged checkpoint, and equal in the end; the same again."""
    drawn = Draw(1, Feature("toy"), (blow("damage", "rename", 0.5),))
    results = [table.play(drawn) for _ in range(2)]
    assert [(r.verdict, r.reason, r.missed, r.attempts) for r in results] == [("equal", "", 0, 2)] * 2


def _write_in_place(path, data, keep=None):
    if keep is not None and path.exists():
        shutil.copy(path, keep)
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        os.fsync(file.fileno())
        file.write(data[len(data) // 2 :])


def test_a_file_that_is_written_in_place_is_found(table, monkeypatch):
    monkeypatch.setattr(checkpoint_io, "write_atomically", _write_in_place)
    # Which of a run's fsyncs is amid a checkpoint depends on what else is written, so several are tried.
    plays = (table.play(Draw(2, Feature("toy"), (blow("SIGKILL", "fsync", k),))) for k in (0.47, 0.53, 0.41, 0.6, 0.35))
    found = next((result for result in plays if result.verdict == "failed"), None)
    assert found is not None
    assert "a checkpoint was not whole" in found.reason


@pytest.mark.slow
def test_a_run_that_resumes_elsewhere_is_found(table, monkeypatch):
    """A step that is repeated leaves other weights, although nothing is said."""
    from litdiffusion.training import module

    honest = module.DiffusionModule.on_load_checkpoint

    def scaled(self, checkpoint):
        first = next(iter(checkpoint["state_dict"].values()))
        first.mul_(1.0001)
        honest(self, checkpoint)

    monkeypatch.setattr(module.DiffusionModule, "on_load_checkpoint", scaled)
    result = table.play(Draw(3, Feature("toy"), (blow("SIGTERM", "batch start", 0.5),)))
    assert result.verdict == "failed"
    assert "weights differs" in result.reason


def test_an_error_that_its_faults_do_not_explain_is_found(table, monkeypatch):
    def refuse(*_):
        raise UserError("no")

    reference = table.reference(Feature("toy"))
    monkeypatch.setattr("litdiffusion.commands.training.keep_rows", refuse)
    assert reference.left
    result = table.play(Draw(4, Feature("toy"), (blow("SIGKILL", "build", 0.0),)))
    assert result.verdict == "failed"
    assert "do not explain: error: no" in result.reason


def test_seeds_in_a_file_of_results_are_not_played_again(tmp_path):
    path, played = tmp_path / "results.jsonl", []

    def play(seed):
        played.append(seed)
        return {"verdict": "equal"}

    play_chunk(range(3), play, path, None)
    with path.open("a") as file:
        file.write('{"seed": 3, "ver')  # a kill inside a line
    rows = play_chunk(range(1, 5), play, path, None)
    assert played == [0, 1, 2, 3, 4]
    assert [row["seed"] for row in rows] == [1, 2, 3, 4]
    assert sorted(read_results(path)) == [0, 1, 2, 3, 4]
    assert play_chunk(range(9, 12), play, path, minutes=0) == []
