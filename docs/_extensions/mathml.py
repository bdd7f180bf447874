"""Formulas as MathML, written when the site is built: readers need no script and no network."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from latex2mathml.exceptions import (
    DenominatorNotFoundError,
    ExtraLeftOrMissingRightError,
    MissingEndError,
    MissingSuperScriptOrSubscriptError,
    NumeratorNotFoundError,
)
from sphinx.application import Sphinx
from sphinx.util import logging

_logger = logging.getLogger(__name__)
_MISTAKES = (
    DenominatorNotFoundError,
    ExtraLeftOrMissingRightError,
    MissingEndError,
    MissingSuperScriptOrSubscriptError,
    NumeratorNotFoundError,
)


def mathml(latex: str, display: str) -> str:
    """Return a formula as a ``<math>`` element.

    Raises
    ------
    ValueError
        If it has a command that is not known.
    """
    # latex2mathml 3.81 shows the backslash of an underscore that stands in a text.
    latex = re.sub(r"\\text\{[^{}]*\}", lambda text: text[0].replace(r"\_", "_"), latex)
    result = convert(latex, display=display)
    unknown = re.search(r">(\\[^<]*)<", result)
    if unknown:
        raise ValueError(f"{unknown[1]} is not known")
    return result


def _visit(display: str) -> Any:
    def visit(self: Any, node: nodes.math | nodes.math_block) -> None:
        try:
            self.body.append(mathml(node.astext(), display))
        except (ValueError, *_MISTAKES) as error:
            _logger.warning("%s: %r", node.astext(), error, location=node)
        raise nodes.SkipNode

    return visit


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; ``html_math_renderer = "mathml"`` chooses it."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(_visit("inline"), None),
        block_renderers=(_visit("block"), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
