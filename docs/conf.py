"""The site: `make docs` builds it from the notebooks as committed, the documents, and the docstrings."""

import json
import sys
from pathlib import Path

import diffae_core

sys.path.insert(0, str(Path(__file__).parent / "play"))
import build as play  # noqa: E402 (docs/play/build.py)

project = "Diffusion Autoencoder on MNIST"
author = "the diffae-core authors"
copyright = "2026, the diffae-core authors"
version = release = diffae_core.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
]
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


if play.install_runtime():  # else the site is built without the page that runs the models
    tags.add("play")  # noqa: F821 (Sphinx defines it here)


def setup(app):
    app.connect("source-read", prepare_notebook)
    app.connect("build-finished", build_play)


def build_play(app, error: Exception | None) -> None:
    """The page that runs the models, which the index links to where it is built."""
    if error is None and app.tags.has("play"):
        play.build(Path(app.outdir) / "docs" / "play")


def prepare_notebook(app, name: str, source: list[str]) -> None:
    """A notebook's page gets a link to the notebook, and the pictures attached to its text become data URIs.

    MyST does not know attachments.
    """
    if not name.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        for file, data in cell.pop("attachments", {}).items():
            ((kind, content),) = data.items()
            text = text.replace(f"attachment:{file}", f"data:{kind};base64,{''.join(content).strip()}")
        cell["source"] = text
    link = f"{{download}}`Download this notebook <{Path(name).name}.ipynb>`"
    notebook["cells"].insert(1, {"id": "download", "cell_type": "markdown", "metadata": {}, "source": link})
    source[0] = json.dumps(notebook)
