"""The notebooks run from top to bottom, and what they show is true."""

import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

FOLDER = ROOT / "docs" / "notebooks"

AGAINST_THE_FRAMEWORK = """
from litdiffusion import DDIM, Ancestral, DiscreteSchedule
from litdiffusion.diffusion.levels import Prediction

chain = DiscreteSchedule(beta[1:].double())
x_i, clean, z = torch.randn(3, 64, 2)
for i, j in ((T, T - 1), (50, 49), (2, 1), (1, 0)):
    now, after = chain.at(i / T), chain.at(j / T)
    prediction = Prediction(clean, (x_i - now.alpha * clean) / now.sigma)
    for mine, sampler in (
        (ancestral_step(x_i, clean, i, z), Ancestral(variance="posterior")),
        (ddim_step(x_i, clean, i, j), DDIM()),
    ):
        theirs = sampler.step(x_i, prediction, now, after, lambda x: z)
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-4, atol=1e-4)
outside = lambda points: (torch.cdist(points, draw_data(3000)).min(1).values > 0.15).float().mean()
print(f"outside {outside(x):.3f} {outside(y):.3f} {outside(torch.randn(3000, 2)):.3f}")
"""


@pytest.fixture(autouse=True)
def without_progress_bars(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def run(name: str, folder: Path, more: str = "") -> str:
    """All that the notebook prints, with ``more`` as its last cell."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    if more:
        notebook.cells.append(nbformat.v4.new_code_cell(more))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.slow
def test_first_steps_show_the_modes_and_langevins_mistake(tmp_path):
    said = run("first_steps.ipynb", tmp_path)
    left, data = map(float, re.search(r"share of the left mode: (\S+) \(data: (\S+)\)", said).groups())
    assert left == pytest.approx(data, abs=0.06)
    wrong, right = map(float, re.search(r"right mode: Langevin (\S+), annealed (\S+),", said).groups())
    assert wrong < 0.64  # n = 2000, so 0.667 has a deviation of 0.011
    assert right == pytest.approx(2 / 3, abs=0.04)


@pytest.mark.slow
def test_the_mathematics_without_the_framework_is_that_of_the_framework(tmp_path):
    said = run("without_the_framework.ipynb", tmp_path, AGAINST_THE_FRAMEWORK)
    ancestral, ddim, noise = map(float, re.search(r"outside (\S+) (\S+) (\S+)", said).groups())
    assert max(ancestral, ddim) < 0.1
    assert noise > 0.4


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_stored_output_is_complete_and_knows_no_machine(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells[1:] if "print(" in cell.source or "plt." in cell.source)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert not re.search(r"/(home|root|work|tmp|Users)/|site-packages", path.read_text())
