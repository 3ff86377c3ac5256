"""How Sphinx makes web pages of the documents, for `make site`. Its source folder is the repository, so links hold."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

project = "onnxlens"
release = importlib.metadata.version("onnxlens")
copyright = "MIT License"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "models/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "onnxlens"
html_favicon = "../plugins/explorer/web/public/icon.svg"
html_copy_source = False
# Anything else that a document shows as code, such as outputs, is plain text.
highlight_language = "text"


def _add_contents(app: Sphinx, name: str, content: list[str]) -> None:
    """Makes a table of contents of the documents that the README links to, in its order."""
    if name == root_doc:
        title, text = content[0].split("\n", 1)
        linked = re.findall(r"^- \[.*", text, re.M)
        pages = [page for line in linked for page in re.findall(r"\]\(([^)#:]+)\.md\)", line)]
        contents = "\n".join(["```{toctree}", ":hidden:", "", *pages, "```"])
        opened = '<p><a href="../index.html">Open the explorer</a> with the model that ships.</p>'
        content[0] = f"{title}\n\n{opened}\n{text}\n{contents}\n"


def _add_index(app: Sphinx, error: Exception | None) -> None:
    """Web servers show this page of a folder."""
    if error is None:
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Adds both to the build; Sphinx calls it."""
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _add_index)
