"""Sphinx's settings for the site of these documents: `make docs` builds it offline, and warnings are errors."""

from importlib import metadata

project = "agentrq"
copyright = "the agentrq authors"
release = version = metadata.version("agentrq")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "agentrq"
html_static_path: list[str] = []
html_copy_source = False
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["attrs_block"]
myst_heading_anchors = 3

default_role = "code"  # docstrings name things in single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
