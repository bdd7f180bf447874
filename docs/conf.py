"""The documentation site: ``python -m sphinx -WE docs site`` builds it, offline."""

import sys
from pathlib import Path

import brainsched

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "brainsched"
author = "The brainsched authors"
copyright = author
version = release = brainsched.__version__

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_nb",
    "mathml",
    "api_pages",
]

html_theme = "furo"
html_title = f"brainsched {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False

autodoc_typehints = "none"  # the docstrings have them, in words
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
default_role = None

nb_execution_mode = "off"  # tutorials show what is stored in them, which the tests reproduce

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_fence_as_directive = ["math"]  # as GitHub has it
myst_heading_anchors = 3

nitpicky = True  # a reference that leads nowhere is a warning, and so an error
# What our classes stand on has no index that could be read offline.
nitpick_ignore_regex = [
    (r"py:.*", r"(brainstate|braintools|jax|jaxtyping|optax|matplotlib|numpy|collections)\..*"),
    (r"py:.*", r"fnmatch"),
]
