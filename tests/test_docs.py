"""The documentation site: its equations are those of the docstrings, and every page can be found."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import ROOT

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "site"))

import equations  # noqa: E402
from mathml import mathml  # noqa: E402

SOURCES = (ROOT / "src" / "litdiffusion" / "diffusion").rglob("*.py")
LITERALS = {text for path in SOURCES for text in re.findall(r"``([^`]+)``", path.read_text())}


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("x_t = alpha * x_0 + sigma * eps", r"x_{t} = \alpha \, x_{0} + \sigma \, \varepsilon"),
        ("sigma = sqrt(1 - alpha²)", r"\sigma = \sqrt { 1 - \alpha ^2 }"),
        ("ratio^(1/7)", r"\text{ratio} ^ { 1 / 7 }"),
        ("n^-1/2", r"n ^ { - 1 / 2 }"),
        ("v = eta² * posterior variance", r"v = \eta ^2 \, \text{posterior} \; \text{variance}"),
    ],
)
def test_an_equation_in_plain_text_becomes_latex(text, latex):
    assert equations.latex(text) == latex


@pytest.mark.parametrize(
    "text", ["seed + i", 'variance="posterior"', "steps", "t_min", "class_labels[i % N]", "checkpoints/last.ckpt"]
)
def test_code_stays_code(text):
    assert equations.latex(text) is None


def test_most_equations_of_the_mathematics_are_set_and_browsers_can_draw_them():
    drawn = [mathml(latex) for text in LITERALS if (latex := equations.latex(text))]
    assert len(drawn) > 120
    assert all(ElementTree.fromstring(markup).tag.endswith("math") for markup in drawn)


def test_every_page_stands_in_a_table_of_contents():
    tables = "\n".join(path.read_text() for path in (DOCS / "index.md", DOCS / "api" / "index.md"))
    entries = {line for block in re.findall(r"```{toctree}(.*?)```", tables, re.DOTALL) for line in block.split()}
    pages = {path.stem for path in [*DOCS.glob("*.md"), *DOCS.glob("api/*.md")]} - {"index"}
    assert pages <= entries | {"api/index"}


def test_pictures_of_the_gallery_stand_over_their_commands():
    gallery = (DOCS / "gallery.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\(images/([^)]+)\)\n\n```bash\npython \S+", gallery)
    assert len(shown) == gallery.count("![")
    assert all((DOCS / "images" / name).is_file() for name in shown)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_no_other_server(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-d", tmp_path / "trees", DOCS, tmp_path / "site"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(?:https?:)?//""", page.read_text()), page
