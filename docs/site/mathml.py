"""Equations as MathML, which browsers draw themselves: the site needs no script and no other server."""

import re
from html import unescape
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

# Names of characters that HTML knows and XML does not.
ENTITY = re.compile(r"&(?!lt;|gt;|amp;|#)\w+;")
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", NAMESPACE)


def mathml(latex: str, as_block: bool = False) -> str:
    """The equation as a ``<math>`` element."""
    markup = ENTITY.sub(lambda name: unescape(name[0]), tex2mathml(latex, as_block=as_block))
    tree = ElementTree.fromstring(markup)
    for element in list(tree.iter(f"{{{NAMESPACE}}}munderover")):
        base, index, accent = element
        if accent.text == "ˉ":  # docutils sets the index of a letter with a bar below the letter, not beside it
            barred = ElementTree.Element(f"{{{NAMESPACE}}}mover")
            barred.extend([base, accent])
            element.tag = f"{{{NAMESPACE}}}msub"
            element[:] = [barred, index]
    return ElementTree.tostring(tree, encoding="unicode")


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
