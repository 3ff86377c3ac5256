"""Letters that the usual fonts lack: another font that is installed, or one hint."""

from __future__ import annotations

import warnings

import matplotlib.font_manager
import pytest

from onnxlens.plugins._drawing import fonts
from onnxlens.plugins.charts import Table

CHINESE = Table("漢字", ["token"], [["漢"], ["字"]])


@pytest.fixture(autouse=True)
def asked_anew():
    for cached in (fonts._fallbacks, fonts._hinted):
        cached.cache_clear()
    yield
    for cached in (fonts._fallbacks, fonts._hinted):
        cached.cache_clear()


def test_there_is_one_hint_where_no_font_has_a_letter(monkeypatch):
    monkeypatch.setattr(fonts, "_installed", tuple)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        CHINESE.encoded("png")
        CHINESE.encoded("svg")
    (one,) = said
    assert str(one.message).startswith("No font that is installed has the letter '漢' (U+6F22)")
    assert "fonts-noto-cjk" in str(one.message)


def test_an_emoji_is_no_reason_for_a_hint():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Table("x", ["token"], [["\U0001faa9"]]).encoded("png")


def test_other_warnings_are_passed_on():
    class Warning(Table):
        def figure(self):
            warnings.warn("something else", UserWarning, stacklevel=1)
            return super().figure()

    with pytest.warns(UserWarning, match="something else"):
        Warning("x", ["a"], [["b"]]).encoded("png")


def test_a_font_that_is_installed_comes_behind_the_usual_ones(monkeypatch):
    """As on a machine with such a font: one that every machine has stands for it."""
    monkeypatch.setattr(fonts, "_EAST_ASIAN", ("No Such Font", "DejaVu Serif"))
    assert fonts.families()[-1] == fonts.monospace()[-1] == "DejaVu Serif"
    figure = CHINESE.figure()
    assert figure.axes[0].texts[0].get_fontfamily() == ["monospace", "DejaVu Sans", "DejaVu Serif"]


def test_a_font_that_was_installed_later_is_found(monkeypatch, tmp_path):
    """matplotlib keeps a list of fonts from the first time that it was used."""
    path = matplotlib.font_manager.findfont("DejaVu Serif")
    manager = matplotlib.font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if font.name != "DejaVu Serif"])
    monkeypatch.setattr(fonts, "_EAST_ASIAN", ("DejaVu Serif",))
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [str(tmp_path / "no.ttf"), path])
    assert fonts.families()[-1] == "DejaVu Serif"
