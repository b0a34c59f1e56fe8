"""The site: `make docs` builds it from the notebooks as committed, the documents, and the docstrings."""

import diffae_core

project = "Diffusion Autoencoder on MNIST"
author = "the diffae-core authors"
copyright = "2026, the diffae-core authors"
version = release = diffae_core.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/*.ipynb",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "diffae_core/pretrained/README.md",
]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "html_image"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
suppress_warnings = ["mystnb.unknown_mime_type"]  # a panel's live view: its static picture stands before it

html_theme = "furo"
html_title = project
html_static_path = []
