"""The documentation site: ``make docs`` builds docs/ to build/docs, and every warning is an error."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "site"))

project = "litdiffusion"
author = "the litdiffusion authors"
copyright = author
version = release = installed("litdiffusion")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "equations",
    "mathml",
]
exclude_patterns = ["site"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the tests run the notebooks; the site shows the output that is stored in them

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # what Lightning and torch say of their hooks stands in their documentation
autodoc_default_options = {"members": True, "show-inheritance": True, "no-value": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "obj"

html_theme = "furo"
html_title = "litdiffusion"
html_copy_source = False
