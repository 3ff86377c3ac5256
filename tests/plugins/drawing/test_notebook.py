"""Renderings in a notebook: which media types they have, and which output holds plotly's library."""

from __future__ import annotations

import base64
import re
import sys
from html import unescape
from types import SimpleNamespace

import pytest

from onnxlens._lens import Lens
from onnxlens.plugins._drawing import notebook
from onnxlens.plugins._drawing.rendering import Rendering
from onnxlens.plugins._registry import Registry
from onnxlens.runtime.errors import PluginError

TEXT = "the cat <b> sat"
HELD = 'onnxlensFrames.keep("H4sI'  # what a gzip file begins with, in base64


@pytest.fixture
def lens(runner) -> Lens:
    return Lens(runner("base"), Registry(find=False))


@pytest.fixture
def shell(monkeypatch):
    """IPython's shell in a notebook, as far as it is asked."""
    shell = SimpleNamespace(kernel=object(), execution_count=1, user_ns={"_ih": ["", "one"]}, parent_header={})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(notebook, "_CELLS", notebook._Cells())
    return shell


def page_of(html: str) -> str:
    (page,) = re.findall(r'srcdoc="([^"]*)"', html)
    return unescape(page)


def test_a_notebook_keeps_text_picture_and_page(lens):
    rendering = lens.view("attention", TEXT)
    bundle = rendering._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    assert bundle["text/plain"] == str(rendering)
    assert base64.b64decode(bundle["image/png"]) == rendering.encoded("png")
    assert page_of(bundle["text/html"]).startswith("<!DOCTYPE html>")


def test_what_drops_frames_shows_the_picture(lens):
    bundle = lens.view("attention", TEXT)._repr_mimebundle_()
    rest = re.sub(r"<iframe .*?</iframe>|<script>.*?</script>", "", bundle["text/html"], flags=re.S)
    assert f'src="data:image/png;base64,{bundle["image/png"]}"' in rest
    assert "<b>" not in rest


def test_only_what_is_wanted_is_made(lens, monkeypatch):
    rendering = lens.view("attention", TEXT)
    monkeypatch.setattr(rendering, "figure", None)
    monkeypatch.setattr(rendering, "html", None)
    assert rendering._repr_mimebundle_(include=["text/plain"]) == {"text/plain": str(rendering)}
    assert rendering._repr_mimebundle_(exclude=["text/html", "image/png"]) == {"text/plain": str(rendering)}


def test_outside_of_a_notebook_the_page_needs_nothing_else(lens, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    rendering = lens.view("attention", TEXT)
    for html in (rendering._repr_html_(), rendering._repr_mimebundle_()["text/html"]) * 2:
        assert html.count(HELD) == 1


def test_one_output_of_a_notebook_holds_plotlys_library(lens, shell):
    def shown(name: str, run: int, **cell: object) -> bool:
        shell.execution_count = run
        shell.user_ns["_ih"] = [cell.get("source", "")]
        shell.parent_header = {"metadata": {"cellId": cell["id"]}} if "id" in cell else {}
        return HELD in lens.view(name, TEXT)._repr_mimebundle_()["text/html"]

    assert not shown("tokens", 1, source="tokens")  # which plotly does not draw
    assert shown("attention", 2, source="attention")
    assert not shown("attention", 2, source="attention")  # by the same run of the same cell
    assert not shown("logit_lens", 3, source="logit lens")
    assert shown("attention", 4, source="attention")  # run anew, which removed the output that held it
    assert not shown("attention", 5, id="a", source="attention")  # another cell of the same text
    assert not shown("attention", 6, id="a")


def test_a_cell_is_known_by_its_id_where_there_is_one(lens, shell):
    shell.parent_header = {"metadata": {"cellId": "a"}}
    rendering = lens.view("attention", TEXT)
    assert HELD in rendering._repr_mimebundle_()["text/html"]
    shell.execution_count, shell.user_ns["_ih"] = 2, ["edited"]
    assert HELD in rendering._repr_mimebundle_()["text/html"]


def test_where_outputs_cannot_see_each_other_each_holds_the_library(lens, shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    rendering = lens.view("attention", TEXT)
    assert all(HELD in rendering._repr_mimebundle_()["text/html"] for _ in range(2))


def test_ipython_in_a_terminal_shows_the_text(lens, shell):
    del shell.kernel
    rendering = lens.view("attention", TEXT)
    assert rendering._repr_mimebundle_() == {"text/plain": str(rendering)}


def test_without_the_libraries_there_is_the_text(lens, monkeypatch):
    for library in ("matplotlib", "plotly", "plotly.graph_objects", "plotly.offline"):
        monkeypatch.setitem(sys.modules, library, None)
    bundle = lens.view("attention", TEXT)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/html"].startswith("<pre>base: attention pattern, 2 blocks, 4 heads\n")
    assert "<b>" not in bundle["text/html"]


def test_a_rendering_that_is_only_text_is_text():
    class Plain(Rendering):
        def text(self):
            return "a < b"

    assert Plain()._repr_mimebundle_() == {"text/plain": "a < b", "text/html": "<pre>a &lt; b</pre>"}
    assert Plain()._repr_html_() == "<pre>a &lt; b</pre>"

    class Broken(Rendering):
        def html(self):
            return 5

    with pytest.raises(PluginError, match="must return text"):
        Broken()._repr_mimebundle_()


def test_text_is_in_the_file_also_where_rich_would_print_into_a_cell(lens, monkeypatch, tmp_path):
    rendering = lens.view("tokens", TEXT)
    expected = rendering.save(tmp_path / "outside.txt").read_text()
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert rendering.save(tmp_path / "inside.txt").read_text() == expected != "\n"
